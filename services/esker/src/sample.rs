//! Log lines for a try: made from templates, every run of digits drawn anew for each line at its
//! own width. The same seed gives the same lines.

/// Lines as services of every kind write them. Digits stand for digits.
const TEMPLATES: [&str; 24] = [
    "2026-03-14T07:21:58.103Z INFO  gateway request id=83f1-20917 method=GET path=/v1/orders/48213907 status=200 bytes=18231 took=12.4ms",
    "2026-03-14T07:21:58.117Z INFO  gateway request id=83f1-20918 method=POST path=/v1/carts/7731/items status=201 bytes=412 took=31.9ms",
    "2026-03-14T07:21:58.142Z WARN  gateway upstream 10.4.17.203:8443 slow: 1250 ms over 20 requests, 3 in retry",
    "2026-03-14T07:21:58.160Z ERROR orders payment 90127734 declined by processor 4, code 51, attempt 2 of 3",
    "Mar 14 07:21:59 node-0412 kernel: [1837264.918273] nvme0n1: I/O 417 QID 5 timeout, completion polled",
    "Mar 14 07:21:59 node-0412 sshd[21734]: Accepted publickey for deploy from 192.168.40.17 port 51822 ssh2",
    "Mar 14 07:21:59 node-0087 systemd[1]: session-30482.scope: Deactivated successfully, consumed 2.417s CPU time",
    "10.21.3.187 - - [14/Mar/2026:07:22:00 +0000] \"GET /assets/app-83f20c.js HTTP/2.0\" 304 0 \"-\" \"agent/5.0 build 20260101\"",
    "10.21.3.12 - - [14/Mar/2026:07:22:00 +0000] \"GET /search?q=esker+gravel&page=4 HTTP/1.1\" 200 73114 \"-\" \"agent/4.2\"",
    "172.16.9.244 - - [14/Mar/2026:07:22:00 +0000] \"PUT /objects/0193-4417-8825 HTTP/1.1\" 204 0 \"-\" \"sync/1.18.3\"",
    "I0314 07:22:01.556120   18734 scheduler.go:312] pod batch/reindex-58812-7 bound to node-0177, 41 nodes evaluated, 12 feasible",
    "W0314 07:22:01.601443   18734 lease.go:88] lease 4471 renewed late by 2210 ms, holder node-0003",
    "E0314 07:22:01.702118   18734 kubelet.go:1904] volume pv-33871 not attached after 180 s, 5 retries left",
    "level=info ts=2026-03-14T07:22:02.114Z caller=compact.go:519 msg=\"wrote block\" mint=1741932000000 maxt=1741939200000 series=284113 duration=9.81s",
    "level=warn ts=2026-03-14T07:22:02.240Z caller=head.go:221 msg=\"series limit near\" tenant=417 current=1480022 limit=1500000",
    "{\"ts\":1741936922.481,\"level\":\"info\",\"svc\":\"billing\",\"invoice\":77120934,\"cents\":129900,\"shard\":7,\"msg\":\"invoice issued\"}",
    "{\"ts\":1741936922.513,\"level\":\"debug\",\"svc\":\"fraud\",\"order\":48213908,\"score\":0.0418,\"rules\":31,\"took_us\":2214,\"msg\":\"scored\"}",
    "{\"ts\":1741936922.590,\"level\":\"error\",\"svc\":\"mail\",\"queue\":18321,\"smtp\":451,\"host\":\"mx4.example\",\"msg\":\"temporary failure, retry in 300 s\"}",
    "[2026-03-14 07:22:03,718] INFO [GroupCoordinator 12]: member consumer-88-3f10 joined group ledger, generation 417, 9 members",
    "[2026-03-14 07:22:03,731] INFO [Log partition=clicks-31]: rolled segment at offset 1993847112 in 4 ms, 1073740288 bytes",
    "07:22:04.005 [worker-17] DEBUG pool - connection 5c1f/8812 borrowed, 23 active, 9 idle, waited 0 ms",
    "07:22:04.019 [worker-03] INFO  import - 250000 of 1833120 rows, 48213 rows/s, eta 33 s",
    "sensor 0x4f21 gravel-pit-7: temperature 11.4 C, moisture 23.9 %, battery 3.71 V, rssi -87 dBm, seq 661202",
    "flow 10.0.17.4:51824 > 10.0.93.201:443 proto 6 packets 1833 bytes 2418823 flags 0x18 duration 12.811 s",
];

/// Makes lines.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    state: u64,
}

impl Lines {
    pub(crate) fn new(seed: u64) -> Self {
        // Any seed but this one's complement leaves a state that is not zero; zero would stay zero.
        let state = seed ^ 0x9e37_79b9_7f4a_7c15;
        Self {
            state: if state == 0 { 1 } else { state },
        }
    }

    /// Writes the next line into `line`, without a newline.
    pub(crate) fn write(&mut self, line: &mut Vec<u8>) {
        line.clear();
        let count = TEMPLATES.len() as u64;
        let at = usize::try_from(self.draw() % count).expect("a few");
        line.extend_from_slice(TEMPLATES[at].as_bytes());
        let (mut digits, mut left) = (0, 0);
        for byte in line.iter_mut().filter(|byte| byte.is_ascii_digit()) {
            if left == 0 {
                (digits, left) = (self.draw(), 19);
            }
            *byte = b'0' + u8::try_from(digits % 10).expect("a digit");
            (digits, left) = (digits / 10, left - 1);
        }
    }

    /// Fills `bytes` with what no codec makes smaller.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.draw().to_le_bytes()[..part.len()]);
        }
    }

    /// xorshift64*: fast, and the same everywhere (Vigna, 2016).
    fn draw(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(seed: u64, count: usize) -> Vec<Vec<u8>> {
        let mut made = Lines::new(seed);
        let mut line = Vec::new();
        let next = |_| {
            made.write(&mut line);
            line.clone()
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_lines_and_another_gives_others() {
        assert_eq!(lines(7, 1000), lines(7, 1000));
        assert_ne!(lines(7, 1000), lines(8, 1000));
        assert_eq!(lines(0x9e37_79b9_7f4a_7c15, 10).len(), 10);
    }

    #[test]
    fn only_digits_change_and_they_do() {
        let shape = |line: &[u8]| {
            let blank = line
                .iter()
                .map(|b| if b.is_ascii_digit() { b'0' } else { *b });
            blank.collect::<Vec<_>>()
        };
        let shapes: std::collections::BTreeSet<_> = TEMPLATES
            .iter()
            .map(|template| shape(template.as_bytes()))
            .collect();
        let made = lines(1, 5000);
        assert!(made.iter().all(|line| shapes.contains(&shape(line))));
        let distinct: std::collections::BTreeSet<_> = made.iter().collect();
        assert!(distinct.len() > 4990, "{}", distinct.len());
    }
}
