import CLibFuzzer
import MartletFuzz

#if canImport(Glibc)
    import Glibc
#endif

/// `martlet-fuzz TARGET [CORPUS] [FLAG…]`: libFuzzer's flags, for one of our targets. `martlet-fuzz` alone lists them.
///
/// With `MARTLET_PLANTED_BUG=name` one of the decoders has a bug.
@main struct MartletFuzzProgram {
    nonisolated(unsafe) private static var target = FuzzTarget.requests

    static func main() {
        guard CommandLine.argc > 1, let name = CommandLine.arguments.dropFirst().first, let chosen = FuzzTarget(rawValue: name) else {
            for target in FuzzTarget.allCases { print(target.rawValue) }
            for bug in plantedBugs { print("bug \(bug.name) \(bug.target)") }
            exit(CommandLine.argc > 1 ? 2 : 0)
        }
        target = chosen
        if let bug = getenv("MARTLET_PLANTED_BUG").map({ String(cString: $0) }) { plant(bug) }
        // the fuzzer sees the arguments without the target
        var count = CommandLine.argc - 1
        var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv + 1
        arguments?[0] = CommandLine.unsafeArgv[0]
        let code = withUnsafeMutablePointer(to: &count) { count in
            withUnsafeMutablePointer(to: &arguments) { arguments in
                LLVMFuzzerRunDriver(count, arguments) { bytes, size in
                    MartletFuzzProgram.target.run(UnsafeRawBufferPointer(start: bytes, count: size))
                    return 0
                }
            }
        }
        exit(code)
    }

    private static func plant(_ name: String) {
        guard plantBug(name) else {
            print("no bug is called \(name)")
            exit(2)
        }
    }
}
