//! The user and password for servers that require them.

use std::fmt;
use std::sync::Arc;

/// The most bytes of user and password together. No server's authentication file has longer lines.
const MAX_LEN: usize = 1024;

/// Credentials, presented on every new connection to a server with an authentication file.
#[derive(Clone)]
pub(crate) struct Credentials {
    user: Arc<str>,
    password: Arc<str>,
}

impl Credentials {
    pub(crate) fn new(user: &str, password: &str) -> Self {
        Self { user: user.into(), password: password.into() }
    }

    /// Returns what makes the credentials invalid; `None` if they are valid.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let (user, password) = (self.user.as_bytes(), self.password.as_bytes());
        let is_line_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
        if user.is_empty() {
            Some("the user of the credentials is empty")
        } else if user.contains(&b' ') || user.iter().any(is_line_break) {
            Some("the user of the credentials holds a space or a line break")
        } else if password.iter().any(is_line_break) {
            Some("the password of the credentials holds a line break")
        } else if user.len() + password.len() > MAX_LEN {
            Some("the credentials are longer than 1024 bytes")
        } else {
            None
        }
    }

    /// Returns the credentials as they are sent: the user, a space, the password.
    pub(crate) fn to_wire(&self) -> String {
        format!("{} {}", self.user, self.password)
    }

    /// Returns whether a text contains the password, so that it must not be shown.
    pub(crate) fn password_occurs_in(&self, text: &str) -> bool {
        !self.password.is_empty() && text.contains(&*self.password)
    }
}

impl fmt::Debug for Credentials {
    /// Prints neither the user nor the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_credentials_are_reported() {
        let longest = "x".repeat(MAX_LEN - 1);
        for (user, password) in [("u", "p"), ("u:v", "p:q r\t"), ("ü", ""), ("u", &*longest)] {
            assert_eq!(Credentials::new(user, password).problem(), None, "{user:?} {password:?}");
        }
        for (user, password) in [
            ("", "p"),
            ("a b", "p"),
            ("a\r", "p"),
            ("a\nb", "p"),
            ("a", "p\r\nflush_all"),
            ("a", "\n"),
            ("uu", &*longest),
        ] {
            assert!(Credentials::new(user, password).problem().is_some(), "{user:?} {password:?}");
        }
    }

    #[test]
    fn debug_shows_neither_user_nor_password() {
        assert_eq!(format!("{:?}", Credentials::new("user", "secret")), "Credentials(..)");
    }
}
