//! Clocks.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use longshore_types::Instant;

/// Says what time it is, and wakes whoever sleeps.
///
/// ```
/// use std::time::Duration;
/// use longshore_fakecloud::{Clock, ManualClock};
/// use longshore_types::Instant;
/// let clock = ManualClock::new();
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.now().since(Instant::ZERO), Duration::from_secs(5));
/// ```
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time; it never goes back.
    fn now(&self) -> Instant;

    /// Ends when it is `at` or later; at once if it is so already.
    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Instant {
        (**self).now()
    }

    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        (**self).sleep_until(at)
    }
}

/// A clock that moves only when it is told to; its clones are the same clock.
///
/// ```
/// use std::time::Duration;
/// use longshore_fakecloud::{Clock, ManualClock};
/// use longshore_types::Instant;
/// let clock = ManualClock::new();
/// let tomorrow = Instant::ZERO + Duration::from_secs(86_400);
/// // Whatever waits for the clock alone need not wait.
/// clock.run(clock.sleep_until(tomorrow));
/// assert_eq!(clock.now(), tomorrow);
/// clock.advance_to(tomorrow + Duration::from_secs(1));
/// assert_eq!(clock.next_waking(), None);
/// ```
#[derive(Clone, Default)]
pub struct ManualClock(Arc<Mutex<Hands>>);

#[derive(Default)]
struct Hands {
    now: Instant,
    sleepers: BTreeMap<(Instant, u64), Waker>,
    slept: u64,
}

impl ManualClock {
    /// A clock at [`Instant::ZERO`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves on by so much, and wakes whoever slept until then.
    pub fn advance(&self, by: Duration) {
        self.advance_to(self.now() + by);
    }

    /// Moves on to a moment, and wakes whoever slept until then; it never moves back.
    pub fn advance_to(&self, at: Instant) {
        let mut hands = self.hands();
        hands.now = hands.now.max(at);
        let now = hands.now;
        let mut due = Vec::new();
        while let Some(entry) = hands.sleepers.first_entry()
            && entry.key().0 <= now
        {
            due.push(entry.remove());
        }
        drop(hands);
        due.into_iter().for_each(Waker::wake);
    }

    /// Until when the first sleeper sleeps.
    pub fn next_waking(&self) -> Option<Instant> {
        self.hands().sleepers.keys().next().map(|(at, _)| *at)
    }

    /// Runs a future to its end on this thread; whenever it waits, the clock moves on to the next
    /// moment that anybody sleeps until. If nobody sleeps, it waits for real until it is woken by
    /// another thread.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let alarm = Arc::new(Alarm {
            thread: thread::current(),
            rung: AtomicBool::new(false),
        });
        let waker = Waker::from(Arc::clone(&alarm));
        let mut future = pin!(future);
        loop {
            let mut context = Context::from_waker(&waker);
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            while !alarm.rung.swap(false, Ordering::AcqRel) {
                match self.next_waking() {
                    Some(at) => self.advance_to(at),
                    None => thread::park(),
                }
            }
        }
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hands = self.hands();
        f.debug_struct("ManualClock")
            .field("now", &hands.now)
            .field("sleepers", &hands.sleepers.len())
            .finish()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.hands().now
    }

    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Sleep {
            clock: self.clone(),
            at,
            number: None,
        })
    }
}

/// Wakes the thread that runs a future.
struct Alarm {
    thread: Thread,
    rung: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

struct Sleep {
    clock: ManualClock,
    at: Instant,
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = self.clock.clone();
        let mut hands = clock.hands();
        if hands.now >= self.at {
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| {
            hands.slept += 1;
            hands.slept
        });
        let waker = context.waker().clone();
        let unused = hands.sleepers.insert((self.at, number), waker);
        // Not while the clock is locked: a waker may own a future that sleeps here too.
        drop(hands);
        drop(unused);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let unused = self.clock.hands().sleepers.remove(&(self.at, number));
            drop(unused);
        }
    }
}
