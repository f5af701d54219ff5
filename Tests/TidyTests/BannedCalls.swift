/// A call that has a better one in this project. Comments and string literals are not searched.
struct BannedCall: Sendable {
    let pattern: String
    let instead: String
    /// Paths that begin so may use it.
    var allowed: [String] = []

    /// In everything that becomes part of a program.
    static let inSources: [BannedCall] = [
        .init(
            pattern: #"\bTask\s*(\(|\{|<)|\bTask\.(detached|immediate)"#,
            instead: "`loop.spawn`: an unstructured task visits the global pool and cannot be replayed",
            allowed: ["Sources/MartletReactor/", "Sources/MartletSimulation/"]),
        .init(
            pattern: #"\bTask\.sleep"#, instead: "a timer of the event loop: time is a parameter",
            allowed: ["Sources/MartletReactor/"]),
        .init(
            pattern: #"\b(ContinuousClock|SuspendingClock)\b|\bDate\(|\bclock_gettime\(|\bgettimeofday\(|\btime\(nil\)"#,
            instead: "the `Clock` that is handed in", allowed: ["Sources/MartletReactor/"]),
        .init(
            pattern: #"\bSystemRandomNumberGenerator\b|\.random\(in: [^)]*\)(?<!using: &random\))(?<!using: &self\))(?<!\.random\))"#,
            instead: "`using:` with the generator that is handed in: a run is brought back by its seed"),
        .init(pattern: #"\.(shuffled|randomElement)\(\)"#, instead: "the form with `using:`"),
        .init(pattern: #"\bAsyncStream\b|\bAsyncThrowingStream\b"#, instead: "a bounded queue with a name of its own"),
        .init(
            pattern: #"\bwithChecked(Throwing)?Continuation\b"#, instead: "a waiter in a table, completed by a call",
            allowed: ["Sources/MartletReactor/"]),
        .init(
            pattern: #"^\s*((public|package|internal|private|final|distributed)\s+)*actor\s+\w"#,
            instead: "a state machine behind a `Mutex`"),
        .init(
            pattern: #"(?<![\w.])print\(|\bdebugPrint\(|\bdump\("#, instead: "a `Logger`",
            allowed: ["Sources/martlet/", "Sources/martlet-bench/", "Sources/WireGenerator/"]),
        .init(pattern: #"\bfatalError\("#, instead: "`preconditionFailure` with a sentence, or an error"),
        .init(pattern: #"\btry!"#, instead: "`do` and `catch`, or a typed `throws`"),
        .init(pattern: #"\bas!\s"#, instead: "`as?` and a precondition with a sentence", allowed: ["Sources/martlet-bench/"]),
        .init(pattern: #"\bDispatchQueue\b|\bpthread_create\(|\bThread\("#, instead: "a lane", allowed: ["Sources/MartletReactor/"]),
        // what every byte of the wire passes through is public there: only that is inlined into other modules
        .init(
            pattern: #"^\s*public\s"#, instead: "`package`: nothing is public until a library is published",
            allowed: ["Sources/MartletBasics/"]),
        .init(pattern: #"@testable"#, instead: "`package` access"),
        .init(
            pattern: #"\b(class|struct|enum|protocol|actor|typealias)\s+\w*(Manager|Helper|Utils?|V2)\b"#,
            instead: "the noun that Kafka or ZooKeeper have for it"),
    ]

    static let inTests: [BannedCall] = [
        .init(pattern: #"@testable"#, instead: "`package` access: tests see what other targets see"),
        .init(pattern: #"\bTask\.sleep"#, instead: "the simulated clock, or a wait for what is expected"),
        .init(pattern: #"\bSystemRandomNumberGenerator\b"#, instead: "`SeededRandom`: a failure is brought back by its seed"),
    ]

    static let inManifest: [BannedCall] = [
        .init(pattern: #"unsafeFlags"#, instead: "nothing: nobody could depend on a package that has them"),
        .init(pattern: #"\.package\("#, instead: "a C library of the distribution: no Swift package is fetched"),
    ]
}
