//! Blocks, padding and positions.

use hlrp_vla::{block_mask, positions};
use tch::{Kind, Tensor};

#[test]
fn a_token_sees_valid_tokens_of_its_own_and_earlier_blocks() {
    let is_valid_BL = Tensor::from_slice(&[true, true, false, true, true, true]).unsqueeze(0);
    let opens_block_BL = Tensor::from_slice(&[0_i64, 0, 0, 1, 1, 1]).unsqueeze(0);
    let mask = Vec::<Vec<i64>>::try_from(block_mask(&is_valid_BL, &opens_block_BL).squeeze_dim(0).to_kind(Kind::Int64))
        .unwrap();
    let expected: [[i64; 6]; 6] = [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [1, 1, 0, 1, 1, 1],
    ];
    assert_eq!(mask, expected.map(Vec::from));
    assert_eq!(Vec::<i64>::try_from(positions(&is_valid_BL).squeeze_dim(0)).unwrap(), [0, 1, 1, 2, 3, 4]);
}
