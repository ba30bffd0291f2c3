//! Blocks against values that ggml's reference implementation in Python gives for them.
//!
//! Every block is random bytes, so that all bits count, with scales that are ordinary numbers; compared are sixteen values
//! spread over the block and, against a wrong place of any of the others, a sum weighted by position.

#![expect(clippy::unreadable_literal, reason = "the numbers are compared, not read")]

use super::TensorType;

fn check(code: u32, block: &str, every: usize, expected: &[f32], weighted_sum: f64) {
    let raw: Vec<u8> =
        (0..block.len()).step_by(2).map(|at| u8::from_str_radix(&block[at..at + 2], 16).unwrap()).collect();
    let tensor_type = TensorType::from_code(code).unwrap();
    assert_eq!(raw.len(), tensor_type.bytes);
    let mut values = Vec::new();
    tensor_type.append_values(&raw, &mut values).unwrap();
    assert_eq!(values.len(), tensor_type.values);
    let seen: Vec<f32> = values.iter().step_by(every).copied().collect();
    assert_eq!(seen, expected);
    let sum: f64 = (1..).zip(&values).map(|(position, &value)| f64::from(position) * f64::from(value)).sum();
    assert!(
        (sum - weighted_sum).abs() < 1e-6 * weighted_sum.abs().max(1.0),
        "{sum} instead of {weighted_sum}"
    );
}

#[test]
fn q4_0_blocks_are_read_as_ggml_reads_them() {
    check(
        2,
        "6e24e5f1a94106a0956a26afbccdafe562f9",
        2,
        &[
            -0.0519104,
            0.017303467,
            -0.034606934,
            -0.0519104,
            -0.034606934,
            0.06921387,
            0.12112427,
            -0.1038208,
            0.1038208,
            0.034606934,
            -0.13842773,
            0.017303467,
            -0.1038208,
            0.0519104,
            0.034606934,
            -0.034606934,
        ],
        9.65533447265625,
    );
}

#[test]
fn q4_1_blocks_are_read_as_ggml_reads_them() {
    check(
        3,
        "6e2401a942276ad5ab2da7394551370e99b2d74c",
        2,
        &[
            -0.004486084,
            0.13394165,
            0.15124512,
            0.08203125,
            0.047424316,
            0.08203125,
            0.11663818,
            0.08203125,
            0.03012085,
            0.06472778,
            0.13394165,
            0.13394165,
            0.03012085,
            0.012817383,
            0.11663818,
            0.18585205,
        ],
        40.422821044921875,
    );
}

#[test]
fn q5_0_blocks_are_read_as_ggml_reads_them() {
    check(
        6,
        "6e24fa48d732a1df70aca1e926115901dd06f27f8f06",
        2,
        &[
            -0.259552,
            -0.27685547,
            0.017303467,
            0.1038208,
            -0.12112427,
            -0.0519104,
            -0.24224854,
            0.259552,
            0.17303467,
            0.12112427,
            0.17303467,
            0.034606934,
            -0.19033813,
            -0.0519104,
            0.259552,
            -0.13842773,
        ],
        -7.734649658203125,
    );
}

#[test]
fn q5_1_blocks_are_read_as_ggml_reads_them() {
    check(
        7,
        "6e2401a9f9bd0ccc21397c1ec795ca7748dc03d17a88934d",
        2,
        &[
            0.25506592,
            0.16854858,
            0.35888672,
            0.41079712,
            0.3761902,
            0.28967285,
            0.41079712,
            0.012817383,
            -0.004486084,
            0.35888672,
            0.16854858,
            0.16854858,
            0.03012085,
            0.23776245,
            0.08203125,
            0.39349365,
        ],
        118.28842163085938,
    );
}

#[test]
fn q8_0_blocks_are_read_as_ggml_reads_them() {
    check(
        8,
        "6e247357a2e64647f03e2fb81f223f4192c58efd5185f0711ef7677a1f132a818d88",
        2,
        &[
            1.9898987,
            -1.6265259,
            1.2112427,
            -0.27685547,
            0.81326294,
            0.5364075,
            1.0901184,
            -1.9033813,
            -1.9725952,
            1.4015808,
            -0.27685547,
            0.519104,
            1.7822571,
            0.5364075,
            0.7267456,
            -1.9898987,
        ],
        -43.604736328125,
    );
}

#[test]
fn q2_k_blocks_are_read_as_ggml_reads_them() {
    check(
        10,
        "a100b28d6b236b82481bd9fe630dc3ce3be4ebcab72f45b35223479f6e794d57037e2cfde9e15a7789781e3721a557d8\
         e5a703296dcb81db3f65cf9c1bdc5d1d8fc83f0b0bb4db71be572209851d3d246e2401a9",
        17,
        &[
            0.44284058, 0.0, 0.49923706, 0.98757935, 0.8055725, 0.18200684, 0.42489624, 0.34735107,
            0.5716553, 0.6101074, 0.97540283, 1.0708923, 0.2864685, 0.22494507, 0.5210266, 0.4691162,
        ],
        17213.770111083984,
    );
}

#[test]
fn q3_k_blocks_are_read_as_ggml_reads_them() {
    check(
        11,
        "fe4363f82f4759778955f6ced681cbea7179ced2c8f814a13472ff70ce369d8385452a44f318337f08cd1e614f235d3f\
         83bc45fee9ee0403a79be118544441317c9311f85e0429b19f7ec0e156f65a3322e791b880ee995e3f0d307d2fbaf400\
         693a179e0d027ed4e58be7a96e24",
        17,
        &[
            0.3633728,
            0.0,
            0.7959595,
            -0.1038208,
            -0.1557312,
            -0.06921387,
            -0.0,
            -0.27685547,
            -0.1038208,
            -0.50180054,
            0.0,
            0.4671936,
            0.27685547,
            -0.0,
            0.39797974,
            0.0,
        ],
        -394.103759765625,
    );
}

#[test]
fn q4_k_blocks_are_read_as_ggml_reads_them() {
    check(
        12,
        "6e2401a955638144eb6603f7b2725de11fe6ac2f88a68182869793f0aad6ded8116e3ab51681c4a374fec70a68b3e4bd\
         c92b387987416c17ec90963ec766888ab4b80eba7c5cfd81121bea9cee1810dfd5169faf26cd7b5c30c8aba44d972299\
         e8c7b41b9a1d2b0f180600a974d63b6332202c998e82b2522c49c4394c7d73265b6aaf61b288fbd0aecfa76661622361",
        17,
        &[
            7.131592, 6.768219, 7.541748, 8.147369, 0.23840332, 0.32492065, 2.5653992, 2.703827, 2.306488,
            4.1752625, 4.0137634, 4.0137634, 9.539337, 1.7527771, 4.4828796, 4.1887207,
        ],
        132841.0339050293,
    );
}

#[test]
fn q5_k_blocks_are_read_as_ggml_reads_them() {
    check(
        13,
        "6e2401a9aa388ffabd0a6a6412b209971e2d827076f7e49ab8fa197271be53a3442b128cdad72bad0f8aeef42a0b9a26\
         d74fc78f2562b8701097a55b5510543d27ed600de3200a6749307fd37899c118819af6674394c3f7aa5f93f32c810a37\
         ca7bf1013ccdf8ab8ab4a6039954e84cbe3b3f7f1183c3df8375c517b4e786a9aadf7488f892b12191387ad86aca56d8\
         531c927b931fe8f16e795b9b331767e712dbe8f5331dd9917f01e64710dd3c25",
        17,
        &[
            7.4718933, 23.460297, 27.522766, 0.39093018, 6.573395, 9.168915, 13.450562, 27.500977, 12.468109,
            5.9966125, 0.8453064, 1.4336243, 14.104889, 9.848236, 6.6874695, 2.8807068,
        ],
        355771.8877258301,
    );
}

#[test]
fn q6_k_blocks_are_read_as_ggml_reads_them() {
    check(
        14,
        "f4d21690a049453135550ec0193a8bed1783d53ec944658d1d28960c44b0382e93438e60788d51e279a131f8130b3ea4\
         bd2f5d95e57bd791436d840f4e6654608135bbfb885d346959a49b36402a4f3dcc489fb6511fbe09e5d72bf834e04fe0\
         28ca4991e02abd77279fedc206d2318ca8b8287a6f4b795209575d7277d456c0f6e81a0e584d730660f56bb8b588475f\
         7066c1cd7109c5079a933ee857db751ff223726ad90697f749f7c61bd80163a8c9a356ba91d79f6d24ee3a14ebd41386\
         d8faef6e9e6c70df41dba9aeb5301e586e24",
        17,
        &[
            -2.7685547, -0.3114624, -4.118225, 39.97101, 10.174438, -52.325684, -21.317871, 13.133331,
            -7.8730774, -4.481598, 4.516205, 19.86438, 15.57312, -1.6611328, -6.748352, 18.27246,
        ],
        44469.97888183594,
    );
}

#[test]
fn plain_numbers_are_read_as_they_are() {
    check(0, "0000c03f", 1, &[1.5], 1.5);
    check(1, "003e", 1, &[1.5], 1.5);
    check(30, "c03f", 1, &[1.5], 1.5);
    check(30, "2bc1", 1, &[-10.6875], -10.6875);
    check(1, "0100", 1, &[5.960_464_5e-8], 5.960_464_477_539_063e-8);
}
