import CLibFuzzer
import MartletFuzz

#if canImport(Glibc)
import Glibc
#endif

/// `martlet-fuzz TARGET [CORPUS] [FLAG…]`: libFuzzer's flags, for one of our targets. `martlet-fuzz` alone lists them.
///
/// `MARTLET_FUZZ_JOURNAL=file`: what targets that live longer than an input have done, as an input that does it again.
/// With `MARTLET_PLANTED_BUG=name` one of the decoders has a bug.
@main struct MartletFuzzProgram {
    private static let variable = "MARTLET_FUZZ_TARGET"
    nonisolated(unsafe) private static var session = FuzzSession(.requests)
    /// Where to keep what has been done since the target began anew: with a broker that has lived through many inputs, the
    /// last one alone does not show how it came to its end.
    nonisolated(unsafe) private static var journal: Int32 = -1

    static func main() {
        var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv
        var count = CommandLine.argc
        if let named = CommandLine.arguments.dropFirst().first, FuzzTarget(rawValue: named) != nil {
            // the fuzzer sees the arguments without the target; the processes that it starts see it here
            setenv(variable, named, 1)
            count -= 1
            arguments = CommandLine.unsafeArgv + 1
            arguments?[0] = CommandLine.unsafeArgv[0]
        }
        guard let name = getenv(variable), let chosen = FuzzTarget(rawValue: String(cString: name)) else { list() }
        if let path = getenv("MARTLET_FUZZ_JOURNAL") { journal = open(path, O_WRONLY | O_CREAT | O_APPEND | O_TRUNC, 0o644) }
        let onProgress: ((FuzzSession.Progress) -> Void)? = journal < 0 ? nil : { note($0) }
        session = FuzzSession(chosen, onProgress: onProgress)
        if let bug = getenv("MARTLET_PLANTED_BUG").map({ String(cString: $0) }) { plant(bug) }
        let code = withUnsafeMutablePointer(to: &count) { count in
            withUnsafeMutablePointer(to: &arguments) { arguments in
                LLVMFuzzerRunDriver(count, arguments) { bytes, size in
                    MartletFuzzProgram.session.run(UnsafeRawBufferPointer(start: bytes, count: size))
                    return 0
                }
            }
        }
        session.end()
        exit(code)
    }

    private static func note(_ progress: FuzzSession.Progress) {
        switch progress {
        case .beganAnew: _ = ftruncate(journal, 0)
        case .did(let steps): steps.withUnsafeBytes { _ = write(journal, $0.baseAddress, $0.count) }
        }
    }

    private static func list() -> Never {
        for target in FuzzTarget.allCases { print(target.rawValue) }
        for bug in plantedBugs { print("bug \(bug.name) \(bug.target)") }
        exit(CommandLine.argc > 1 ? 2 : 0)
    }

    private static func plant(_ name: String) {
        guard plantBug(name) else {
            print("no bug is called \(name)")
            exit(2)
        }
    }
}
