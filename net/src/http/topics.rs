//! `/topics`: what is held of each topic.
//!
//! A node may have 65,534 topics, whose answer takes megabytes and seconds to make. So one is made at a
//! time, off the control thread, and shared by all who asked before it was begun: however many ask,
//! each waits for two at most.
//!
//! Invariants: an answer tells of everything that was acknowledged before its request came; it counts
//! against the memory of queries as long as one of those who share it holds it, and no longer: nothing
//! else does. Where all who wait have gone, it is not made to its end. Who may not see all
//! topics shares none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::{Extension, State};
use engine::search::Topics;
use engine::search::format::rfc3339;
use hyper::{HeaderMap, Response, StatusCode, Uri};
use serde::Serialize;
use tokio::sync::oneshot;

use super::App;
use super::admission::Client;
use super::alive::{self, Alive};
use super::answer::Refusal;
use super::held::{self, With};
use super::parameters::{Known, Parameters};
use super::query::{answered, begin, memory_for, missing, stopping};
use crate::backend::Reader;
use crate::budget::Taken;

/// An answer and the memory that it holds.
pub(super) type Shared = Arc<With<Taken>>;

/// See the module page. `T` is what all of them get.
pub(super) struct TopicsDesk<T = Result<Shared, Refusal>> {
    state: Mutex<Desk<T>>,
}

struct Desk<T> {
    /// Those for whom no answer was begun yet.
    waiting: Vec<oneshot::Sender<T>>,
    is_making: bool,
}

impl<T> Default for TopicsDesk<T> {
    fn default() -> Self {
        Self { state: Mutex::new(Desk { waiting: Vec::new(), is_making: false }) }
    }
}

/// `GET /topics`.
pub(super) async fn get(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    Extension(client): Extension<Client>,
) -> Response<Body> {
    let answer = async {
        Parameters::parse(uri.query(), Known { single: &[], repeated: &[] })?;
        let reader = app.backend.reader(&client.access)?;
        let place = app.ledger.lasting(client.address)?;
        // What only some may see is made for each of them, as any other query is.
        let is_everybodys = client.access.topics().is_none();
        let of = Arc::clone(&app);
        let make = move || {
            let (app, reader) = (Arc::clone(&of), reader.clone());
            async move { make(&app, &reader).await }
        };
        let desk = Arc::clone(&app.topics);
        let shared = async move {
            let shared = if is_everybodys {
                desk.answer(make).await.unwrap_or_else(|| Err(stopping()))?
            } else {
                make().await?
            };
            Ok(held::answer(StatusCode::OK, "application/json", Share(shared, place)))
        };
        alive::object(Alive::asked_for(&headers, &app.options), shared).await
    };
    let answer = answer.await;
    answered(&app, answer)
}

/// One client's hold on an answer.
struct Share<P>(Shared, P);

impl<P> AsRef<[u8]> for Share<P> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().as_ref()
    }
}

impl<T: Clone + Send + 'static> TopicsDesk<T> {
    fn lock(&self) -> MutexGuard<'_, Desk<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an answer that is begun from now on. `None`: the server ends.
    async fn answer<F>(self: &Arc<Self>, make: impl Fn() -> F + Send + Sync + 'static) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let is_making = {
            let mut state = self.lock();
            state.waiting.push(tell);
            std::mem::replace(&mut state.is_making, true)
        };
        if !is_making {
            tokio::spawn(Arc::clone(self).serve(make));
        }
        told.await.ok()
    }

    /// Makes answers as long as somebody waits.
    async fn serve<F: Future<Output = T>>(self: Arc<Self>, make: impl Fn() -> F) {
        while let Some(mut waiting) = self.next_round() {
            let answer = tokio::select! {
                biased;
                () = until_all_have_gone(&mut waiting) => continue,
                answer = make() => answer,
            };
            for waits in waiting {
                // It may have gone, and its share with it.
                drop(waits.send(answer.clone()));
            }
        }
    }

    /// All who wait now; nobody makes answers any longer if that is nobody.
    fn next_round(&self) -> Option<Vec<oneshot::Sender<T>>> {
        let mut state = self.lock();
        let waiting = std::mem::take(&mut state.waiting);
        state.is_making = !waiting.is_empty();
        state.is_making.then_some(waiting)
    }
}

async fn until_all_have_gone<T>(waiting: &mut [oneshot::Sender<T>]) {
    for waits in waiting {
        waits.closed().await;
    }
}

async fn make(app: &App, reader: &Reader) -> Result<Shared, Refusal> {
    let watch = begin(app, "topics").await?;
    let view = reader.pin().await;
    let found = view.topics().await.ok_or_else(stopping)?;
    watch.count(&found.stats);
    let encoded = tokio::task::spawn_blocking(move || encode(&found)).await;
    let bytes = encoded.map_err(|_| stopping())?;
    // Nobody waits for memory while holding some.
    drop(watch);
    let memory = memory_for(app, bytes.len()).await?;
    Ok(Arc::new(With(bytes, memory)))
}

/// One of the rows.
#[derive(Serialize)]
struct Row<'a> {
    topic: &'a str,
    records: u64,
    bytes: u64,
    from: String,
    to: String,
}

/// Row by row, so that nothing but the text itself is made of them.
fn encode(found: &Topics) -> Vec<u8> {
    let mut out = b"{\"topics\":[".to_vec();
    for (at, topic) in found.topics.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let row = Row {
            topic: topic.topic.as_str(),
            records: topic.records,
            bytes: topic.bytes,
            from: rfc3339(topic.first_ms),
            to: rfc3339(topic.last_ms),
        };
        // Neither text nor numbers can fail, nor can memory.
        let _ = serde_json::to_writer(&mut out, &row);
    }
    let end = format!(
        "],\"complete\":{},\"missing\":{}}}\n",
        found.stats.complete,
        missing(&found.stats)
    );
    out.extend_from_slice(end.as_bytes());
    out.shrink_to_fit();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;

    /// A desk whose answers take as long as the test wants, and how many were begun.
    struct Slow {
        desk: Arc<TopicsDesk<Arc<usize>>>,
        begun: Arc<Mutex<Vec<Arc<usize>>>>,
        may_end: Arc<Semaphore>,
    }

    impl Slow {
        fn new() -> Self {
            let may_end = Arc::new(Semaphore::new(0));
            Self { desk: Arc::default(), begun: Arc::default(), may_end }
        }

        /// Asks and has waited once.
        async fn ask(&self) -> tokio::task::JoinHandle<Option<Arc<usize>>> {
            let (begun, may_end) = (Arc::clone(&self.begun), Arc::clone(&self.may_end));
            let desk = Arc::clone(&self.desk);
            let asks = tokio::spawn(async move {
                let make = move || {
                    let (begun, may_end) = (Arc::clone(&begun), Arc::clone(&may_end));
                    async move {
                        let answer = {
                            let mut begun = begun.lock().unwrap();
                            let answer = Arc::new(begun.len());
                            begun.push(Arc::clone(&answer));
                            answer
                        };
                        may_end.acquire().await.unwrap().forget();
                        answer
                    }
                };
                desk.answer(make).await
            });
            self.turn().await;
            asks
        }

        /// Everybody gets on as far as may be.
        async fn turn(&self) {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }

        /// Who holds which answer, the test's own copy not counted.
        fn holders(&self) -> Vec<usize> {
            self.begun.lock().unwrap().iter().map(|answer| Arc::strong_count(answer) - 1).collect()
        }
    }

    #[tokio::test]
    async fn those_who_asked_before_it_was_begun_share_an_answer_that_goes_with_the_last_of_them() {
        let slow = Slow::new();
        let first = slow.ask().await;
        let others = [slow.ask().await, slow.ask().await, slow.ask().await];
        slow.may_end.add_permits(1);
        assert_eq!(*first.await.unwrap().unwrap(), 0);
        assert_eq!(slow.holders()[0], 0, "the first has let go of it, and nobody keeps it");
        // One leaves while it waits.
        let [one, gone, last] = others;
        gone.abort();
        slow.turn().await;
        slow.may_end.add_permits(1);
        let kept = one.await.unwrap().unwrap();
        drop(last.await.unwrap().unwrap());
        slow.turn().await;
        assert_eq!((*kept, slow.holders()), (1, vec![0, 1]));
        drop(kept);
        assert_eq!(slow.holders(), [0, 0]);
    }

    #[tokio::test]
    async fn an_answer_for_which_nobody_waits_any_longer_is_given_up() {
        let slow = Slow::new();
        let first = slow.ask().await;
        let second = slow.ask().await;
        first.abort();
        slow.turn().await;
        assert_eq!(slow.holders(), [0, 1], "the second one's is begun at once");
        second.abort();
        slow.turn().await;
        assert_eq!(slow.holders(), [0, 0]);
        // The desk serves on.
        let third = slow.ask().await;
        slow.may_end.add_permits(1);
        assert_eq!(*third.await.unwrap().unwrap(), 2);
    }
}
