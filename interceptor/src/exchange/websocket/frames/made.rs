//! Frames made for tests: of this folder, and of the tier that runs a whole sidecar.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// A frame as it stands on the wire.
pub(super) fn frame(
    opcode: OpCode,
    payload: &[u8],
    is_final: bool,
    rsv1: bool,
    mask: Option<[u8; 4]>,
) -> Vec<u8> {
    let header = FrameHeader {
        is_final,
        rsv1,
        rsv2: false,
        rsv3: false,
        opcode,
        mask,
    };
    let mut bytes = Vec::new();
    header.format(payload.len() as u64, &mut bytes).unwrap();
    let masked = payload
        .iter()
        .enumerate()
        .map(|(at, byte)| byte ^ mask.map_or(0, |mask| mask[at % 4]));
    bytes.extend(masked);
    bytes
}

/// A text message, or its first part.
pub(super) const TEXT: OpCode = OpCode::Data(Data::Text);
/// A further part of a message.
pub(super) const REST: OpCode = OpCode::Data(Data::Continue);
/// A ping.
pub(super) const PING: OpCode = OpCode::Control(Control::Ping);
/// A mask with bytes of all kinds.
pub(super) const MASK: Option<[u8; 4]> = Some([0x5a, 0, 0xff, 7]);
