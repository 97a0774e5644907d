//! The limits of the queue and of each account, and the counts that they are compared with.

use std::collections::HashMap;
use std::time::Duration;

/// Most jobs and tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Jobs that wait, of all accounts together.
    pub waiting: usize,
    /// Jobs of one account that wait.
    pub account_waiting: usize,
    /// Jobs of one account that run at the same time; others of it wait although a slot is free.
    pub account_running: usize,
    /// Computed tokens of one account per minute, prompts and answers; `None` for no limit.
    pub account_tokens_per_minute: Option<u64>,
}

impl Default for QueueLimits {
    /// 64 waiting jobs, no limit for an account.
    fn default() -> QueueLimits {
        QueueLimits {
            waiting: 64,
            account_waiting: usize::MAX,
            account_running: usize::MAX,
            account_tokens_per_minute: None,
        }
    }
}

/// The counts of the accounts that have jobs or a debt of tokens.
#[derive(Debug, Default)]
pub(super) struct Accounts(HashMap<String, Account>);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    pub(super) waiting: usize,
    pub(super) running: usize,
    /// Computed tokens that the minutes since have not paid for, as of `at`.
    debt: f64,
    at: Duration,
}

impl Accounts {
    pub(super) fn of(&self, name: &str) -> Account {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub(super) fn change(&mut self, name: &str, change: impl FnOnce(&mut Account)) {
        change(self.0.entry(name.to_owned()).or_default());
    }

    /// Counts `tokens` that were computed for an account.
    pub(super) fn charge(&mut self, name: &str, tokens: u64, limit: Option<u64>, now: Duration) {
        let Some(limit) = limit else { return };
        self.change(name, |account| {
            account.debt = account.debt_at(limit, now) + tokens as f64;
            account.at = now;
        });
    }

    /// Forgets accounts without jobs whose tokens are paid for.
    pub(super) fn forget_idle(&mut self, limit: Option<u64>, now: Duration) {
        self.0.retain(|_, a| a.waiting + a.running > 0 || limit.is_some_and(|limit| a.debt_at(limit, now) > 0.0));
    }
}

impl Account {
    fn debt_at(&self, limit: u64, now: Duration) -> f64 {
        let paid = now.saturating_sub(self.at).as_secs_f64() * limit as f64 / 60.0;
        (self.debt - paid).max(0.0)
    }

    /// The time until the account may compute again; `None` when it may now.
    pub(super) fn wait_for_tokens(&self, limit: Option<u64>, now: Duration) -> Option<Duration> {
        let limit = limit?;
        let excess = self.debt_at(limit, now) - limit as f64;
        (excess >= 0.0).then(|| Duration::from_secs_f64((excess + 1.0) * 60.0 / limit.max(1) as f64))
    }
}
