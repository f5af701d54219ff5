import MartletFuzz
import MartletReactor
import Testing

/// What the fuzzer has found stays found: each input of the kept corpus, and each that once ended the process, is read
/// again by an ordinary build.
@Suite struct WhatTheFuzzerFound {
    private static let folder = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/") + "/Fuzz"
    private static let disk = RealDisk()

    private func run(_ session: FuzzSession, _ input: some Collection<UInt8>) {
        // memory of its own, that ends where the input does
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: input.count, alignment: 1)
        defer { bytes.deallocate() }
        bytes.copyBytes(from: input)
        session.run(UnsafeRawBufferPointer(bytes))
    }

    /// A packed corpus: of each input its size, an int32, and its bytes.
    private func inputs(_ packed: [UInt8]) throws -> [ArraySlice<UInt8>] {
        var found: [ArraySlice<UInt8>] = []
        var rest = packed[...]
        while !rest.isEmpty {
            try #require(rest.count >= 4, "the corpus is cut")
            let count = rest.prefix(4).reduce(0) { $0 << 8 | Int($1) }
            rest = rest.dropFirst(4)
            try #require(rest.count >= count, "the corpus is cut")
            found.append(rest.prefix(count))
            rest = rest.dropFirst(count)
        }
        return found
    }

    @Test(arguments: FuzzTarget.allCases)
    func `the kept corpus is read to its end`(_ target: FuzzTarget) throws {
        let packed = try #require(
            try Self.disk.contents("\(Self.folder)/Corpus/\(target.rawValue).pack"), "no corpus is kept for \(target)")
        let inputs = try inputs(packed)
        #expect(inputs.count > 10)
        let session = FuzzSession(target)
        for input in inputs { run(session, input) }
        session.end()
    }

    @Test(arguments: FuzzTarget.allCases)
    func `what once ended the process is read like anything else`(_ target: FuzzTarget) throws {
        let folder = "\(Self.folder)/Crashes/\(target.rawValue)"
        guard try Self.disk.status(folder) != nil else { return }
        for name in try Self.disk.list(folder) {
            let session = FuzzSession(target)
            run(session, try #require(try Self.disk.contents("\(folder)/\(name)")))
            session.end()
        }
    }

    @Test(arguments: FuzzTarget.allCases)
    func `no input at all, and zeros, are read`(_ target: FuzzTarget) {
        let session = FuzzSession(target)
        for count in [0, 1, 2, 5, 64, 1000] {
            for byte: UInt8 in [0, 1, 0x7F, 0x80, 0xFF] { run(session, [UInt8](repeating: byte, count: count)) }
        }
        session.end()
    }
}
