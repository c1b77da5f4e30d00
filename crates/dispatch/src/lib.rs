//! dispatch::Core (pure): pool, scheduler and queue cache composed; with feature runtime the event loop around it.
