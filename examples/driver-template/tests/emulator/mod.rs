//! An API like Acme's, in memory, on tokio's clock: pages, eventual appearance, a quota, a rate
//! limit, and bad days. Make it say what the real one says, with its codes and in its order.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longshore_cloud::{CallContext, Tags};
use longshore_driver_acme::{Api, ApiError, Order, Page, Server};
use tokio::time::{Instant, sleep};

const LATENCY: Duration = Duration::from_millis(50);
const DELETING: Duration = Duration::from_secs(5);
/// Longer than anybody waits.
const SILENCE: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Default)]
pub(crate) struct Emulator(Mutex<State>);

/// The servers, and how the API behaves; tests change it as they like.
#[derive(Debug)]
pub(crate) struct State {
    servers: BTreeMap<String, Made>,
    tokens: BTreeMap<String, String>,
    refilled: Option<Instant>,
    calls_left: f64,
    /// The most servers.
    pub(crate) quota: usize,
    /// Servers on a page; each page but the first begins with the last one of the page before.
    pub(crate) page_size: usize,
    /// How long until a new server is listed.
    pub(crate) lag: Duration,
    /// Calls per second, and as many at once.
    pub(crate) rate: f64,
    /// The reply of the next so many calls is lost after they acted.
    pub(crate) lose_replies: u32,
    /// Pages after the first fail.
    pub(crate) breaks_pages: bool,
    /// The last page says that there is one more: itself.
    pub(crate) endless: bool,
    /// Listings show servers whatever their tags.
    pub(crate) ignores_tags: bool,
    /// Requests are not answered for a day.
    pub(crate) silent: bool,
    /// Deleting and tagging this server fails.
    pub(crate) stuck: Option<String>,
    /// Deleting and tagging this server is not answered for a day.
    pub(crate) hangs: Option<String>,
}

#[derive(Debug)]
struct Made {
    server: Server,
    at: Instant,
    deleted: Option<Instant>,
    console: Vec<u8>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            servers: BTreeMap::new(),
            tokens: BTreeMap::new(),
            refilled: None,
            calls_left: 0.0,
            quota: 1_200,
            page_size: 100,
            lag: Duration::from_secs(20),
            rate: 200.0,
            lose_replies: 0,
            breaks_pages: false,
            endless: false,
            ignores_tags: false,
            silent: false,
            stuck: None,
            hangs: None,
        }
    }
}

fn refused(status: u16, code: &str) -> ApiError {
    ApiError::Refused {
        status,
        code: code.into(),
        message: "says the emulator".into(),
        retry_after: (status == 429).then_some(Duration::from_secs(1)),
    }
}

impl State {
    fn take_call(&mut self) -> Result<(), ApiError> {
        let now = Instant::now();
        let since = self.refilled.replace(now).map(|before| now - before);
        let new = since.map_or(self.rate, |since| since.as_secs_f64() * self.rate);
        self.calls_left = (self.calls_left + new).min(self.rate);
        if self.calls_left < 1.0 {
            return Err(refused(429, "rate_limited"));
        }
        self.calls_left -= 1.0;
        Ok(())
    }

    fn bury(&mut self) {
        let over = |made: &Made| made.deleted.is_some_and(|at| at.elapsed() >= DELETING);
        self.servers.retain(|_, made| !over(made));
    }

    /// How many servers there really are, whatever listings show.
    pub(crate) fn count(&self) -> usize {
        self.servers
            .values()
            .filter(|m| m.deleted.is_none())
            .count()
    }

    fn server(&mut self, id: &str) -> Result<&mut Made, ApiError> {
        if self.stuck.as_deref() == Some(id) {
            return Err(refused(500, "internal"));
        }
        let made = self.servers.get_mut(id);
        made.ok_or_else(|| refused(404, "no_such_server"))
    }

    fn create(&mut self, order: &Order) -> Result<Server, ApiError> {
        if let Some(id) = self.tokens.get(&order.token) {
            let made = self.servers.get(id);
            let made = made.ok_or_else(|| refused(409, "token_used"))?;
            return Ok(made.server.clone());
        }
        match (order.server_type.as_str(), order.image.as_str()) {
            ("s1.small", "debian") => {}
            (_, "debian") => return Err(refused(400, "unknown_type")),
            _ => return Err(refused(404, "unknown_image")),
        }
        check_tags(&order.tags)?;
        if order.user_data.as_deref() == Some("") {
            return Err(refused(400, "bad_user_data"));
        }
        if self.servers.len() >= self.quota {
            return Err(refused(403, "server_quota"));
        }
        let number = self.tokens.len();
        let server = Server {
            id: format!("srv-{number:06}"),
            server_type: order.server_type.clone(),
            status: "running".into(),
            address: Some(format!("192.0.2.{}:22", number % 250 + 1)),
            tags: order.tags.clone(),
            created_ms: i64::try_from(number).ok(),
        };
        let made = Made {
            server: server.clone(),
            at: Instant::now(),
            deleted: None,
            console: format!("{} boots\n", server.id).repeat(20).into_bytes(),
        };
        self.tokens.insert(order.token.clone(), server.id.clone());
        self.servers.insert(server.id.clone(), made);
        Ok(server)
    }

    fn list(&self, tags: &Tags, page: Option<&str>) -> Result<Page, ApiError> {
        if self.breaks_pages && page.is_some() {
            return Err(refused(502, "bad_gateway"));
        }
        let shown = |made: &&Made| {
            let has = |(key, value)| made.server.tags.get(key) == Some(value);
            made.at.elapsed() >= self.lag && (self.ignores_tags || tags.iter().all(has))
        };
        let from = page.unwrap_or_default().to_owned();
        let rest = self.servers.range(from..).map(|(_, made)| made);
        let mut servers: Vec<Server> = rest.filter(shown).map(|m| m.server.clone()).collect();
        let more = servers.len() > self.page_size;
        servers.truncate(self.page_size);
        let last = servers.last().map(|server| server.id.clone());
        let next = last.filter(|_| more || self.endless);
        Ok(Page { servers, next })
    }
}

fn check_tags(tags: &Tags) -> Result<(), ApiError> {
    let bad = |text: &String| text.len() > 256 || text.contains(char::is_control);
    match tags.iter().any(|(key, value)| bad(key) || bad(value)) {
        true => Err(refused(400, "bad_tag")),
        false => Ok(()),
    }
}

impl Emulator {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn hang(&self, id: &str) {
        if self.state().hangs.as_deref() == Some(id) {
            sleep(SILENCE).await;
        }
    }

    /// A request on its way, what it does there, and the reply on its way back.
    async fn serve<T>(
        &self,
        act: impl FnOnce(&mut State) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        sleep(LATENCY).await;
        if self.state().silent {
            sleep(SILENCE).await;
        }
        let answer = {
            let mut state = self.state();
            state.bury();
            state.take_call()?;
            act(&mut state)
        };
        sleep(LATENCY).await;
        let mut state = self.state();
        if state.lose_replies > 0 {
            state.lose_replies -= 1;
            return Err(ApiError::NoReply("connection reset".into()));
        }
        answer
    }
}

#[async_trait]
impl Api for Emulator {
    async fn create_server(&self, _: &CallContext, order: &Order) -> Result<Server, ApiError> {
        self.serve(|state| state.create(order)).await
    }

    async fn list_servers(
        &self,
        _: &CallContext,
        tags: &Tags,
        page: Option<&str>,
    ) -> Result<Page, ApiError> {
        self.serve(|state| state.list(tags, page)).await
    }

    async fn delete_server(&self, _: &CallContext, id: &str) -> Result<(), ApiError> {
        self.hang(id).await;
        self.serve(|state| {
            let made = state.server(id)?;
            made.deleted.get_or_insert_with(Instant::now);
            made.server.status = "deleting".into();
            Ok(())
        })
        .await
    }

    async fn set_tags(&self, _: &CallContext, id: &str, tags: &Tags) -> Result<(), ApiError> {
        self.hang(id).await;
        self.serve(|state| {
            let made = state.server(id)?;
            check_tags(tags)?;
            made.server.tags.extend(tags.clone());
            Ok(())
        })
        .await
    }

    async fn console(&self, _: &CallContext, id: &str) -> Result<Vec<u8>, ApiError> {
        self.serve(|state| Ok(state.server(id)?.console.clone()))
            .await
    }
}
