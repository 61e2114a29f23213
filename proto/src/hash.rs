//! The hash behind VDI ids, attribute ids and placement: FNV-1a, 64 bits (3.3, 3.8, 8).

use crate::{NAME_LEN, Vid, field_text};

const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x100_0000_01b3;

/// FNV-1a 64 of `bytes`, continued from `state`.
pub fn fnv1a_from(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |h, &b| (h ^ u64::from(b)).wrapping_mul(PRIME))
}

/// FNV-1a 64 of `bytes`.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    fnv1a_from(OFFSET_BASIS, bytes)
}

/// Where the search for a VDI id starts on a cluster that hashes names (3.3).
///
/// Only a server may act on it: a client must ask, since clusters can recycle ids.
pub fn vid_of_name(name: &[u8]) -> Vid {
    let low = fnv1a(field_text(name)) as u32 & 0xff_ffff;
    Vid::new(low.max(1)).expect("24 bits")
}

/// Where the search for an attribute's id starts (3.8).
pub fn attr_id(name: &[u8; NAME_LEN], tag: &[u8; NAME_LEN], snap_id: u32, key: &[u8; 256]) -> u32 {
    let mut h = fnv1a(name);
    h = fnv1a_from(h, tag);
    h = fnv1a_from(h, &snap_id.to_le_bytes());
    fnv1a_from(h, key) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name_field;

    #[test]
    fn names_hash_to_the_ids_the_real_server_gave_them() {
        for (name, hash, vid) in [
            ("", 0xcbf2_9ce4_8422_2325, 0x222325),
            ("alpha", 0x8ac6_25bb_85ed_202b, 0xed202b),
            ("test", 0xf9e6_e6ef_197c_2b25, 0x7c2b25),
            ("foobar", 0x8594_4171_f739_67e8, 0x3967e8),
            ("io1", 0x2ba3_2819_2bd7_43c0, 0xd743c0),
            ("sn1", 0x824c_4a19_5cf0_19af, 0xf019af),
            ("日本", 0x121d_7e35_a6d3_ce91, 0xd3ce91),
            ("vol7646017", 0x4939_665b_0eed_202b, 0xed202b),
            ("vol31448154", 0xf590_64ac_8700_0000, 0x000001),
            ("vol21720182", 0xe1d5_320f_37ff_ffff, 0xffffff),
        ] {
            assert_eq!(fnv1a(name.as_bytes()), hash, "{name}");
            assert_eq!(vid_of_name(name.as_bytes()).get(), vid, "{name}");
        }
    }

    #[test]
    fn bytes_after_the_first_nul_do_not_count() {
        assert_eq!(vid_of_name(b"alpha\0junk"), vid_of_name(b"alpha"));
    }

    #[test]
    fn attributes_hash_over_whole_fields() {
        let f = |text: &str| name_field(text.as_bytes()).unwrap();
        assert_eq!(attr_id(&f("at1"), &f(""), 0, &f("k1")), 0xdd225355);
        assert_eq!(attr_id(&f("alpha"), &f(""), 0, &f("k1")), 0x4e21358d);
    }
}
