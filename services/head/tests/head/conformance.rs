//! What every head does, said once and asked of both: of the head in process and of the one over the
//! wire.

mod reading; // appends, and where they can be read
pub(crate) mod keeping; // flushes, checkpoints, time
mod naming; // topics and their pages

/// Runs each check against both heads.
macro_rules! conform {
    ($($check:ident),+ $(,)?) => {
        mod in_process {
            $(#[test]
            fn $check() {
                crate::site::run(async {
                    let site = crate::site::Site::start(1).await;
                    super::$check(site.head()).await;
                });
            })+
        }
        mod over_the_wire {
            $(#[test]
            fn $check() {
                crate::site::run(async {
                    let site = crate::site::Site::start(1).await;
                    super::$check(site.called().await).await;
                });
            })+
        }
    };
}
pub(crate) use conform;
