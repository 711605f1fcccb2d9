//! The one owner of book and journal. A change is decided on the book as it is, made, written down
//! and only then acted on.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::book::{Book, Change};
use super::outbox::journal::{Found, Journal};
use crate::base::files::Files;
use crate::base::time::Clock;

/// What everybody sees of the book.
#[derive(Debug, Clone)]
pub struct View {
    /// The book.
    pub book: Arc<Book>,
    /// Why changes are not written down at the moment.
    pub fault: Option<String>,
}

#[derive(Debug)]
struct Inner {
    book: Book,
    journal: Journal,
}

/// Clones share one book.
#[derive(Debug, Clone)]
pub struct Keeper {
    inner: Arc<Mutex<Inner>>,
    view: Arc<watch::Sender<View>>,
    clock: Clock,
}

impl Keeper {
    /// Opens the journal in `folder`. Blocks: it reads and writes files.
    pub fn open(files: Arc<dyn Files>, folder: &Path, clock: Clock, salt: u64) -> (Self, Found) {
        let (mut journal, book, found) = Journal::open(files, folder, salt);
        let fault = journal.begin(&book, clock.now()).err().map(|error| words(&error));
        let view = View { book: Arc::new(book.clone()), fault };
        let view = Arc::new(watch::channel(view).0);
        (Self { inner: Arc::new(Mutex::new(Inner { book, journal })), view, clock }, found)
    }

    /// Returns the book as it is.
    pub fn book(&self) -> Arc<Book> {
        Arc::clone(&self.view.borrow().book)
    }

    /// Returns a receiver of every new view.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Makes the changes that `decide` wants of the book as it is; returns its other result once
    /// they are durable, or cannot be: alerting goes on without a disk.
    ///
    /// `None` when the program is ending.
    pub async fn change<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&Book) -> (Vec<Change>, T) + Send + 'static,
    ) -> Option<T> {
        let this = self.clone();
        // The disk may take its time.
        tokio::task::spawn_blocking(move || this.change_now(decide)).await.ok()
    }

    fn change_now<T>(&self, decide: impl FnOnce(&Book) -> (Vec<Change>, T)) -> T {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Inner { book, journal } = &mut *inner;
        let (changes, result) = decide(book);
        if changes.is_empty() {
            return result;
        }
        for change in &changes {
            book.apply(change.clone());
        }
        let written = journal.append(book, &changes, self.clock.now());
        let fault = written.err().map(|error| words(&error));
        self.view.send_replace(View { book: Arc::new(book.clone()), fault });
        result
    }
}

fn words(error: &std::io::Error) -> String {
    format!(
        "the alert journal cannot be written ({error}): alerts go on, but one may come twice after \
         a restart; make room in the data folder"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::files::memory::{ENOSPC, MemoryFiles};
    use crate::base::time::Timestamp;

    #[tokio::test]
    async fn without_a_disk_alerting_goes_on_and_says_so() {
        let files = MemoryFiles::default();
        let open = || {
            let files: Arc<dyn Files> = Arc::new(files.clone());
            Keeper::open(files, Path::new("/data/journal"), Clock::system(), 1).0
        };
        let keeper = open();
        let add = |name: &str| {
            let sent = vec![Timestamp::EPOCH];
            let change = Change::Group { name: name.to_owned(), sent };
            keeper.change(move |_| (vec![change], ()))
        };
        add("a").await.unwrap();
        assert_eq!(keeper.watch().borrow().fault, None);
        files.fail(files.operations()..usize::MAX, ENOSPC);
        add("b").await.unwrap();
        let told = keeper.watch().borrow().fault.clone();
        assert!(told.is_some_and(|told| told.contains("make room")));
        assert_eq!(keeper.book().groups.len(), 2);
        files.heal();
        add("c").await.unwrap();
        assert_eq!(keeper.watch().borrow().fault, None);
        assert_eq!(open().book().groups.len(), 3);
    }
}
