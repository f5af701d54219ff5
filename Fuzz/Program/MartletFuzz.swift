import CLibFuzzer
import MartletFuzz

#if canImport(Glibc)
import Glibc
#endif

/// `martlet-fuzz TARGET [CORPUS] [FLAG…]`: libFuzzer's flags, for one of our targets. `martlet-fuzz` alone lists them.
///
/// With `MARTLET_PLANTED_BUG=name` one of the decoders has a bug.
@main struct MartletFuzzProgram {
    private static let variable = "MARTLET_FUZZ_TARGET"
    nonisolated(unsafe) private static var target = FuzzTarget.requests

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
        target = chosen
        if let bug = getenv("MARTLET_PLANTED_BUG").map({ String(cString: $0) }) { plant(bug) }
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
