//! What a computation returns to a fetch.

use std::fmt;

use bytes::Bytes;

use crate::item::SetOptions;

/// A computed value, and how [`Client::fetch`](crate::Client::fetch) stores it.
///
/// Made from any value that converts into [`Bytes`]: it is then stored with the options of the
/// [`FetchOptions`](crate::FetchOptions). Return a `Computed` if only the computation knows the TTL or the flags, or
/// that the value must not be stored.
///
/// ```no_run
/// # async fn doc(cache: memring::Client) -> Result<(), Box<dyn std::error::Error>> {
/// # async fn download() -> Result<(String, Option<Duration>), std::io::Error> {
/// #     Ok(("<html>".to_owned(), None))
/// # }
/// use std::time::Duration;
/// use memring::Computed;
///
/// let compute = || async {
///     let (page, max_age) = download().await?;
///     Ok::<_, std::io::Error>(match max_age {
///         Some(max_age) => Computed::new(page).store(max_age),
///         None => Computed::new(page).do_not_store(),
///     })
/// };
/// let page = cache.fetch("page:/", Duration::from_secs(300), compute).await?;
/// # let _ = page;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Computed {
    value: Bytes,
    storing: Storing,
}

#[derive(Debug, Clone, Copy)]
enum Storing {
    AsFetchOptions,
    With(SetOptions),
    Never,
}

impl Computed {
    /// A value that is stored with the options of the [`FetchOptions`](crate::FetchOptions).
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: value.into(), storing: Storing::AsFetchOptions }
    }

    /// Stores the value with these options instead: a [`Duration`](std::time::Duration), a [`Ttl`](crate::Ttl) or
    /// [`SetOptions`].
    ///
    /// If the TTL is invalid, the fetch fails with [`FetchError::Cache`](crate::FetchError::Cache). A duration of zero
    /// is: see [`do_not_store`](Self::do_not_store).
    pub fn store(mut self, options: impl Into<SetOptions>) -> Self {
        self.storing = Storing::With(options.into());
        self
    }

    /// Returns the value without storing it ([`Origin::NotStored`](crate::Origin::NotStored)).
    ///
    /// Callers in this process that wait for the value get it, too. The next caller computes again. A stale item stays
    /// stale.
    pub fn do_not_store(mut self) -> Self {
        self.storing = Storing::Never;
        self
    }

    /// Returns the value, and the options to store it with, if it is to be stored.
    pub(super) fn into_parts(self, default: SetOptions) -> (Bytes, Option<SetOptions>) {
        let store = match self.storing {
            Storing::AsFetchOptions => Some(default),
            Storing::With(options) => Some(options),
            Storing::Never => None,
        };
        (self.value, store)
    }
}

impl<T: Into<Bytes>> From<T> for Computed {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl fmt::Debug for Computed {
    /// Prints the value's length only, because values do not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computed")
            .field("value", &format_args!("{} bytes", self.value.len()))
            .field("storing", &self.storing)
            .finish()
    }
}
