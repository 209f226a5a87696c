//! The service: what a client may ask of the ledger.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::db::{Db, Order, Refusal};
use crate::transfer::Cover;

/// What the routes need.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Where the money is.
    pub db: Db,
    /// What goes around a transfer.
    pub cover: Cover,
    /// How long a transfer pauses between its steps.
    pub pause: Duration,
}

/// `POST /transfer` and `GET /balance`.
pub fn routes(ledger: Ledger) -> Router {
    Router::new().route("/transfer", post(transfer)).route("/balance", get(balance)).with_state(ledger)
}

async fn transfer(State(ledger): State<Ledger>, Json(order): Json<Order>) -> Result<Response, Refusal> {
    let id = ledger.cover.transfer(&ledger.db, order, ledger.pause).await?;
    Ok(Json(json!({ "transfer": id })).into_response())
}

#[derive(Deserialize)]
struct Which {
    account: Option<i64>,
}

/// Of one account, or of all together.
async fn balance(State(ledger): State<Ledger>, Query(which): Query<Which>) -> Result<Response, Refusal> {
    let Some(account) = which.account else { return Ok(Json(ledger.db.sum().await?).into_response()) };
    let balance = ledger.db.balance(account).await?.ok_or(Refusal::NoAccount(account))?;
    Ok(Json(json!({ "account": account, "balance": balance })).into_response())
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::NoAccount(_) => StatusCode::NOT_FOUND,
            Self::TooLittle(_) => StatusCode::CONFLICT,
            Self::Db(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "error": self.to_string() }))).into_response()
    }
}
