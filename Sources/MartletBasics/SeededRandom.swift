/// A small fast generator (xoshiro256**, Blackman and Vigna 2018) whose whole state is one seed. Not for secrets.
package struct SeededRandom: RandomNumberGenerator, Sendable {
    private var a, b, c, d: UInt64

    package init(seed: UInt64) {
        // splitmix64 spreads a small seed over the whole state, as the generator's authors advise
        var mixed = seed
        func next() -> UInt64 {
            mixed &+= 0x9E37_79B9_7F4A_7C15
            var z = mixed
            z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return z ^ (z >> 31)
        }
        a = next()
        b = next()
        c = next()
        d = next()
    }

    package mutating func next() -> UInt64 {
        let times5 = b &* 5
        let result = ((times5 << 7) | (times5 >> 57)) &* 9
        let shifted = b << 17
        c ^= a
        d ^= b
        b ^= c
        a ^= d
        c ^= shifted
        d = (d << 45) | (d >> 19)
        return result
    }

    /// True with a chance of `numerator` in `denominator`.
    package mutating func chance(_ numerator: Int, in denominator: Int) -> Bool {
        Int.random(in: 0..<denominator, using: &self) < numerator
    }

    package mutating func below(_ limit: Int) -> Int { Int.random(in: 0..<limit, using: &self) }
}
