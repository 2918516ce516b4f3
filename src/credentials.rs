//! A user and a password, kept to themselves.

use std::fmt;
use std::sync::Arc;

/// Longer ones are a mistake: no server's file has such lines.
const MAX_LEN: usize = 1024;

/// What a server started with an authentication file is shown on every new connection.
#[derive(Clone)]
pub(crate) struct Credentials {
    user: Arc<str>,
    password: Arc<str>,
}

impl Credentials {
    pub(crate) fn new(user: &str, password: &str) -> Self {
        Self { user: user.into(), password: password.into() }
    }

    /// What makes them impossible to send, if anything does.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let (user, password) = (self.user.as_bytes(), self.password.as_bytes());
        let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n');
        if user.is_empty() {
            Some("the user of the credentials is empty")
        } else if user.contains(&b' ') || user.iter().any(breaks) {
            Some("the user of the credentials holds a space or a line break")
        } else if password.iter().any(breaks) {
            Some("the password of the credentials holds a line break")
        } else if user.len() + password.len() > MAX_LEN {
            Some("the credentials are longer than 1024 bytes")
        } else {
            None
        }
    }

    /// As they go to the server.
    pub(crate) fn token(&self) -> String {
        format!("{} {}", self.user, self.password)
    }

    /// Whether a text gives the password away.
    pub(crate) fn are_in(&self, text: &str) -> bool {
        !self.password.is_empty() && text.contains(&*self.password)
    }
}

impl fmt::Debug for Credentials {
    /// Shows nothing of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_known() {
        let fits = "x".repeat(MAX_LEN - 1);
        for (user, password) in [("u", "p"), ("u:v", "p:q r\t"), ("ü", ""), ("u", &*fits)] {
            assert_eq!(Credentials::new(user, password).problem(), None, "{user:?} {password:?}");
        }
        for (user, password) in
            [("", "p"), ("a b", "p"), ("a\r", "p"), ("a\nb", "p"), ("a", "p\r\nflush_all"), ("a", "\n"), ("uu", &*fits)]
        {
            assert!(Credentials::new(user, password).problem().is_some(), "{user:?} {password:?}");
        }
    }

    #[test]
    fn nothing_is_shown() {
        assert_eq!(format!("{:?}", Credentials::new("user", "secret")), "Credentials(..)");
    }
}
