//! Numbers of 32 bits in JSON, whose numbers have 64.

use serde_json::Value;

/// A number with the digits that tell it from other F32 numbers: 0.95, and not 0.949999988079071. Infinities and NaN are
/// null.
pub(crate) fn short(x: f32) -> Value {
    x.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::short;

    #[test]
    fn numbers_have_the_digits_of_their_width_and_come_back() {
        assert_eq!(short(0.95).to_string(), "0.95");
        assert_eq!(short(-3.5e-9).to_string(), "-3.5e-9");
        assert_eq!((short(f32::NAN), short(f32::INFINITY)), (Value::Null, Value::Null));
        for bits in (0..0x7f80_0000_u32).step_by(0xf_ffff) {
            let x = f32::from_bits(bits);
            assert_eq!((short(x).as_f64().unwrap() as f32).to_bits(), bits);
        }
    }
}
