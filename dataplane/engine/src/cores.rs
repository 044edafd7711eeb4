//! The cores that workers may have, and keeping everybody else off those that they have.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The cores of this process, and what of them is left to its other threads.
pub struct Cores {
    /// Those that the thread that started the datapath might run on.
    allowed: CpuSet,
    /// Those that the other threads have.
    left: CpuSet,
}

impl Cores {
    /// As it is before there is any worker: this thread may run wherever the process may.
    pub fn of_this_thread() -> Cores {
        let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
        Cores { allowed, left: allowed }
    }

    /// The cores that a worker may have.
    pub fn allowed(&self) -> Vec<usize> {
        numbers(&self.allowed)
    }

    /// Keeps all threads that are where they were last left, this one and what it starts among them, off the cores that
    /// have workers, or are going to, if that leaves any. Those that were put elsewhere stay, as workers do.
    pub fn leave_to(&mut self, workers: &[usize]) {
        let before = self.left;
        self.choose(workers);
        if self.left == before {
            return;
        }
        // Again for those that were started meanwhile by one that had not been moved yet.
        while move_threads(&before, &self.left) {}
    }

    fn choose(&mut self, workers: &[usize]) {
        let mut rest = self.allowed;
        workers.iter().for_each(|core| _ = rest.unset(*core));
        self.left = if numbers(&rest).is_empty() {
            tracing::warn!("every core this process may use has a worker: control shares a core with one");
            self.allowed
        } else {
            rest
        };
    }
}

/// Moves the threads of this process that may run `from` these cores. Whether there was any.
fn move_threads(from: &CpuSet, to: &CpuSet) -> bool {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return false };
    let mut any = false;
    for thread in tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()) {
        let thread = Pid::from_raw(thread);
        // One that has ended meanwhile is nowhere.
        if sched_getaffinity(thread).is_ok_and(|cores| cores == *from) {
            any |= sched_setaffinity(thread, to).is_ok();
        }
    }
    any
}

fn numbers(cores: &CpuSet) -> Vec<usize> {
    (0..CpuSet::count()).filter(|core| cores.is_set(*core) == Ok(true)).collect()
}

/// `0-3, 6` for 0, 1, 2, 3 and 6.
pub fn ranges(cores: &[usize]) -> String {
    let runs = cores.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => one.to_string(),
        _ => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    runs.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mine() -> Vec<usize> {
        numbers(&sched_getaffinity(Pid::from_raw(0)).unwrap())
    }

    #[test]
    fn threads_leave_a_workers_core_and_come_back() {
        let all = mine();
        if all.len() < 2 {
            println!("skipped: this process has one core only");
            return;
        }
        // Other tests' threads, if they are in this process, go along, and come back at the end.
        std::thread::spawn(move || {
            let mut cores = Cores::of_this_thread();
            assert_eq!(cores.allowed(), all);
            cores.leave_to(&all[..1]);
            assert_eq!(mine(), all[1..]);
            // What is started then inherits that, and follows later on.
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let (say, said) = std::sync::mpsc::channel();
            let other = std::thread::spawn(move || {
                while wait.recv().is_ok() {
                    say.send(mine()).unwrap();
                }
            });
            let others = || {
                go.send(()).unwrap();
                said.recv().unwrap()
            };
            assert_eq!(others(), all[1..]);
            cores.leave_to(&all[all.len() - 1..]);
            assert_eq!((mine(), others()), (all[..all.len() - 1].to_vec(), all[..all.len() - 1].to_vec()));
            // Nothing would be left: they share.
            cores.leave_to(&all);
            assert_eq!((mine(), others()), (all.clone(), all.clone()));
            cores.leave_to(&all[..1]);
            assert_eq!((mine(), others()), (all[1..].to_vec(), all[1..].to_vec()));
            cores.leave_to(&[]);
            assert_eq!((mine(), others()), (all.clone(), all.clone()));
            drop(go);
            other.join().unwrap();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn ranges_are_short() {
        assert_eq!(ranges(&[0, 1, 2, 3, 6]), "0-3, 6");
        assert_eq!(ranges(&[]), "");
    }
}
