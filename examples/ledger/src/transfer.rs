//! A transfer: debit, pause, credit; and what covers it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use testudo::shield;
use tokio::time::sleep;

use crate::db::{Db, Order, Refusal};

/// How long a transfer may go on when its client is gone or the server stops.
pub const BUDGET: Duration = Duration::from_secs(5);

/// A transfer on its way, as a future of its number.
pub type Work = Pin<Box<dyn Future<Output = Result<i64, Refusal>> + Send>>;

/// What goes around each transfer: a shield, nothing, or what another library has for that.
#[derive(Clone)]
pub struct Cover(Arc<dyn Fn(Work, Order) -> Work + Send + Sync>);

impl Cover {
    /// Covers each transfer with what `cover` makes of it.
    pub fn new(cover: impl Fn(Work, Order) -> Work + Send + Sync + 'static) -> Self {
        Self(Arc::new(cover))
    }

    /// A shield: it goes on when its client is gone, and the end of the run waits for it.
    pub fn shield() -> Self {
        Self::new(|work, order| {
            let name = format!("transfer of {} from {} to {}", order.amount, order.from, order.to);
            Box::pin(shield(work).name(name).budget(BUDGET).report_err())
        })
    }

    /// Nothing: it is dropped with the request that it belongs to.
    pub fn none() -> Self {
        Self::new(|work, _| work)
    }

    /// Begins a transfer under this cover.
    pub fn transfer(&self, db: &Db, order: Order, pause: Duration) -> Work {
        (self.0)(Box::pin(transfer(db.clone(), order, pause)), order)
    }
}

impl fmt::Debug for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cover")
    }
}

/// Two steps with a pause between them, in which nothing is locked. Cut off in the pause, the money is gone.
async fn transfer(db: Db, order: Order, pause: Duration) -> Result<i64, Refusal> {
    let id = db.debit(order).await?;
    sleep(pause).await;
    db.credit(id).await?;
    Ok(id)
}
