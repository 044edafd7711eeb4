//! Filter expressions, pcap-filter(7): libpcap compiles them here, so that ringwired reads numbers only.

use pcap::{Capture, Linktype};

/// An expression as classic BPF, nothing for an empty one; or what is wrong with it.
pub fn compile(expression: &str) -> Result<Vec<(u16, u8, u8, u32)>, String> {
    if expression.trim().is_empty() {
        return Ok(Vec::new());
    }
    let ethernet = Capture::dead(Linktype::ETHERNET).map_err(|error| error.to_string())?;
    let program = ethernet.compile(expression, true).map_err(|error| match error {
        pcap::Error::PcapError(problem) => problem,
        other => other.to_string(),
    })?;
    let instructions = program.get_instructions().iter();
    instructions.map(|one| numbers(&one.to_string()).ok_or_else(|| format!("not BPF: {one}"))).collect()
}

/// The four numbers of an instruction.
fn numbers(text: &str) -> Option<(u16, u8, u8, u32)> {
    let mut numbers = text.split(' ');
    let mut next = || numbers.next();
    Some((next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_compiled_and_a_wrong_one_explained() {
        let arp = compile("arp").unwrap();
        // The type of the frame, if it is 0x806: all of it, else nothing of it.
        assert_eq!(arp[..2], [(0x28, 0, 0, 12), (0x15, 0, 1, 0x806)]);
        assert_eq!((arp.len(), arp[2].0, arp[3]), (4, 6, (6, 0, 0, 0)));
        assert!(arp[2].3 > 0);
        assert_eq!(compile("  "), Ok(Vec::new()));
        let problem = compile("udp prot 7").unwrap_err();
        assert!(problem.contains("syntax error"), "{problem}");
    }
}
