//! What a folder keeps of puts that never ended: a process that dies in one leaves the part it had
//! written, under the key's name, `#` and a number. No listing shows that, so no collector ever
//! finds it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use esker_env::{Files, WorkersExt};

use crate::keys::Prefix;
use crate::store::Store;

/// Folders below one another that are looked into: incarnation, kind, shard or topic, partition,
/// and one to spare.
const DEPTH_MAX: usize = 6;

impl Store {
    /// Removes what puts below `prefix` left behind that never ended, and returns how many. Nobody
    /// may be writing there. A bucket that is no folder keeps nothing of the kind.
    ///
    /// # Errors
    /// What the file system says; some may be removed then.
    pub async fn remove_unfinished(&self, prefix: Prefix) -> io::Result<usize> {
        let Some(folder) = self.url().strip_prefix("file://") else {
            return Ok(0);
        };
        let folder = Path::new(folder).join(prefix.to_string());
        let files = Arc::clone(&self.env().files);
        let sweep = move || sweep(&*files, &folder, DEPTH_MAX);
        self.env().workers.run(sweep).await
    }
}

fn sweep(files: &dyn Files, folder: &Path, depth: usize) -> io::Result<usize> {
    let paths = match files.list(folder) {
        Ok(paths) => paths,
        // An object, or nothing was written yet.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotADirectory | io::ErrorKind::NotFound
            ) =>
        {
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    let mut removed = 0;
    for path in paths {
        if is_unfinished(&path) {
            files.remove(&path)?;
            removed += 1;
        } else if path.extension().is_none() && depth > 0 {
            removed += sweep(files, &path, depth - 1)?;
        }
    }
    Ok(removed)
}

fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.rsplit_once('#'));
    number.is_some_and(|(_, number)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bytes::Bytes;
    use esker_env::Env;
    use esker_types::{Incarnation, RaftIndex, RaftRange, SegmentId, ShardId};

    use super::*;
    use crate::{Key, Options};

    #[tokio::test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a process that died is played by writing into its folder"
    )]
    async fn what_a_put_left_behind_goes_and_every_object_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("file://{}", folder.path().display());
        let store = Store::open(&url, &Options::default(), &Env::real()).expect("a bucket");
        let range = RaftRange::new(RaftIndex(1), RaftIndex(2)).expect("a range");
        let key = |incarnation| Key::FlushedSegment {
            incarnation,
            shard: ShardId(1),
            range,
            id: SegmentId(7),
        };
        let (ours, theirs) = (Incarnation::FIRST, Incarnation::new(2).expect("small"));
        let mut left = Vec::new();
        for incarnation in [ours, theirs] {
            let key = key(incarnation);
            store
                .put(&key, vec![Bytes::from_static(b"whole")])
                .await
                .expect("put");
            let path = folder.path().join(format!("{key}#1"));
            fs::write(&path, b"ha").expect("written");
            left.push(path);
        }
        let removed = store.remove_unfinished(Prefix::Incarnation(ours)).await;
        assert_eq!(removed.expect("swept"), 1);
        assert!(!left[0].exists() && left[1].exists(), "ours only");
        assert_eq!(store.head(&key(ours)).await.expect("it stays"), 5);
        let again = store.remove_unfinished(Prefix::Incarnation(ours)).await;
        assert_eq!(again.expect("swept"), 0);
    }
}
