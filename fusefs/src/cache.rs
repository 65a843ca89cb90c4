//! A cache of parsed objects, bounded by the memory they take.

use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

/// Least recently used objects of one kind, at most `budget` bytes of them by `weigh`'s account.
pub(crate) struct Cache<K: Hash + Eq, V> {
    inner: Mutex<Inner<K, V>>,
    budget: usize,
    weigh: fn(&V) -> usize,
}

struct Inner<K: Hash + Eq, V> {
    entries: LruCache<K, Arc<V>>,
    weight: usize,
}

impl<K: Hash + Eq + Copy, V> Cache<K, V> {
    /// An empty cache; `weigh` tells the bytes that a value keeps alive, roughly.
    pub(crate) fn new(budget: usize, weigh: fn(&V) -> usize) -> Self {
        let inner = Inner {
            entries: LruCache::unbounded(),
            weight: 0,
        };
        Self {
            inner: Mutex::new(inner),
            budget,
            weigh,
        }
    }

    /// The cached value, or the one that `load` brings. Two threads that miss the same object both
    /// load it: cheaper than a lock held over I/O.
    pub(crate) fn get_or_load<E>(
        &self,
        key: &K,
        load: impl FnOnce() -> Result<Arc<V>, E>,
    ) -> Result<Arc<V>, E> {
        if let Some(found) = self.lock().entries.get(key) {
            return Ok(Arc::clone(found));
        }
        let value = load()?;
        self.put(*key, Arc::clone(&value));
        Ok(value)
    }

    fn put(&self, key: K, value: Arc<V>) {
        let added = (self.weigh)(&value);
        let mut inner = self.lock();
        if let Some(old) = inner.entries.put(key, value) {
            inner.weight -= (self.weigh)(&old);
        }
        inner.weight += added;
        while inner.weight > self.budget {
            let Some((_, old)) = inner.entries.pop_lru() else {
                break;
            };
            inner.weight -= (self.weigh)(&old);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Copy, V> std::fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.lock();
        f.debug_struct("Cache")
            .field("entries", &inner.entries.len())
            .field("weight", &inner.weight)
            .field("budget", &self.budget)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_recently_used_values_leave_when_the_budget_is_exceeded() {
        let cache: Cache<u8, Vec<u8>> = Cache::new(10, Vec::len);
        let load = |n: u8, len: usize| {
            cache
                .get_or_load(&n, || Ok::<_, ()>(Arc::new(vec![n; len])))
                .unwrap()
        };
        load(1, 4);
        load(2, 4);
        load(1, 4);
        load(3, 4);
        let fresh = |n: u8| cache.get_or_load(&n, || Err(())).is_err();
        assert!(fresh(2));
        assert!(!fresh(1) && !fresh(3));
        assert!(cache.lock().weight <= 10);
    }

    #[test]
    fn a_value_larger_than_the_budget_is_returned_but_not_kept() {
        let cache: Cache<u8, Vec<u8>> = Cache::new(10, Vec::len);
        let big = cache
            .get_or_load(&1, || Ok::<_, ()>(Arc::new(vec![0; 11])))
            .unwrap();
        assert_eq!(big.len(), 11);
        assert_eq!(cache.lock().weight, 0);
    }
}
