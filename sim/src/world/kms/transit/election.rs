//! Who leads, and how long nobody does: the times are those that were measured on OpenBao with three nodes.

use std::time::Duration;

use tokio::time::Instant;

use crate::world::plan::{Machine, SERVERS};
use crate::world::random::Stream;

/// After the leader was killed: between the shortest and the longest that were seen.
const KILLED: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(13));

/// After it was asked to end.
const STOPPED: Duration = Duration::from_millis(140);

/// After it was sealed.
const SEALED: Duration = Duration::from_millis(1800);

/// After it hangs, which the others have to notice.
const HUNG: Duration = Duration::from_millis(14_400);

/// After it gave up.
const STEPPED_DOWN: Duration = Duration::from_millis(660);

/// Before it is looked again whether enough are there.
const AGAIN: Duration = Duration::from_secs(2);

/// Who leads.
pub(super) struct Election {
    leader: Option<usize>,
    /// Who is taken for the leader though it hangs.
    believed: Option<usize>,
    /// When one is elected, if there is none.
    at: Instant,
}

impl Election {
    /// The first leads.
    pub(super) fn new() -> Self {
        Self { leader: Some(0), believed: None, at: Instant::now() }
    }

    /// Who leads; `Err` with whoever is waited for in vain.
    pub(super) fn leader(&self) -> Result<usize, Option<usize>> {
        self.leader.ok_or(self.believed)
    }

    /// The leader is none any more.
    pub(super) fn step_down(&mut self) {
        if self.leader.take().is_some() {
            self.at = Instant::now() + STEPPED_DOWN;
        }
    }

    /// A server is another now.
    pub(super) fn changed(&mut self, server: usize, machines: &[Machine], random: &Stream) {
        let now = Instant::now();
        let lost = self.leader == Some(server);
        match machines[server] {
            // Nobody has noticed that it was away.
            Machine::Up | Machine::Failing if self.believed == Some(server) && now < self.at => {
                (self.leader, self.believed) = (Some(server), None);
            }
            _ if !lost && enough(machines) => {}
            Machine::Up | Machine::Failing if self.leader.is_some() => {}
            Machine::Up | Machine::Failing => self.at = self.at.max(now + AGAIN),
            state => {
                (self.leader, self.believed) = (None, None);
                let lasts = match state {
                    Machine::Stopped => STOPPED,
                    Machine::Sealed => SEALED,
                    Machine::Hung => HUNG,
                    _ => random.time(KILLED.0, KILLED.1),
                };
                self.at = now + lasts;
                self.believed = (lost && state == Machine::Hung).then_some(server);
            }
        }
    }

    /// Elects one if it is time: whether there is a new leader.
    pub(super) fn go_on(&mut self, machines: &[Machine], random: &Stream) -> Option<usize> {
        let now = Instant::now();
        if self.leader.is_some() || now < self.at {
            return None;
        }
        self.believed = None;
        if !enough(machines) {
            self.at = now + AGAIN;
            return None;
        }
        let able: Vec<_> = (0..SERVERS).filter(|server| is_there(machines[*server])).collect();
        self.leader = Some(able[random.index(able.len())]);
        self.leader
    }
}

/// Whether it takes part.
fn is_there(machine: Machine) -> bool {
    matches!(machine, Machine::Up | Machine::Failing)
}

/// More than the half.
fn enough(machines: &[Machine]) -> bool {
    2 * machines.iter().filter(|machine| is_there(**machine)).count() > SERVERS
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn who_hangs_is_believed_in_until_another_leads() {
        let random = Stream::of(1, "election");
        let (mut election, mut machines) = (Election::new(), [Machine::Up; SERVERS]);
        machines[0] = Machine::Hung;
        election.changed(0, &machines, &random);
        assert_eq!(election.leader(), Err(Some(0)));
        advance(HUNG / 2).await;
        let back = [Machine::Up; SERVERS];
        election.changed(0, &back, &random);
        assert_eq!(election.leader(), Ok(0), "it was not missed");
        election.changed(0, &machines, &random);
        advance(HUNG).await;
        assert!(election.go_on(&machines, &random).is_some_and(|leader| leader != 0));

        // One of three is not enough.
        machines[1] = Machine::Killed;
        election.changed(1, &machines, &random);
        assert_eq!(election.leader(), Err(None));
        for _ in 0..10 {
            advance(AGAIN).await;
            assert_eq!(election.go_on(&machines, &random), None);
        }
        machines[1] = Machine::Up;
        election.changed(1, &machines, &random);
        advance(KILLED.1).await;
        assert!(election.go_on(&machines, &random).is_some());
    }
}
