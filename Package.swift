// swift-tools-version: 6.2
// The list of targets is the architecture: ARCHITECTURE.md says what each is for, and Tests/TidyTests holds the
// table of who may import whom (SwiftPM itself would let a target import whatever its dependencies import).
import PackageDescription

let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6), .enableUpcomingFeature("InternalImportsByDefault"), .treatAllWarnings(as: .error),
]

func library(
    _ name: String, _ dependencies: [Target.Dependency], exclude: [String] = [], plugins: [Target.PluginUsage] = []
) -> Target {
    .target(name: name, dependencies: dependencies, exclude: exclude, swiftSettings: strict, plugins: plugins)
}

func tests(
    _ name: String, _ dependencies: [Target.Dependency], exclude: [String] = [], plugins: [Target.PluginUsage] = []
) -> Target {
    .testTarget(name: name, dependencies: dependencies, exclude: exclude, swiftSettings: strict, plugins: plugins)
}

func system(_ name: String, pkgConfig: String, apt: String) -> Target {
    .systemLibrary(name: name, pkgConfig: pkgConfig, providers: [.apt([apt])])
}

// The fuzzer itself is linked with a library that is there in a build with `-sanitize=fuzzer` alone: `make fuzz` asks for it.
let fuzzer: [Target] =
    Context.environment["MARTLET_FUZZ"] == nil
    ? []
    : [
        .systemLibrary(name: "CLibFuzzer", path: "Fuzz/CLibFuzzer"),
        .executableTarget(
            name: "martlet-fuzz", dependencies: ["MartletFuzz", "CLibFuzzer"], path: "Fuzz/Program", swiftSettings: strict),
    ]

let package = Package(
    name: "martlet",
    products: [],
    targets: [
        // C libraries of the distribution, one target each, and our few lines around system calls.
        system("CUV", pkgConfig: "libuv", apt: "libuv1-dev"),
        system("CISAL", pkgConfig: "libisal", apt: "libisal-dev"),
        system("CZstd", pkgConfig: "libzstd", apt: "libzstd-dev"),
        system("CLZ4", pkgConfig: "liblz4", apt: "liblz4-dev"),
        .systemLibrary(name: "CSnappy", providers: [.apt(["libsnappy-dev"])]),
        system("CZlib", pkgConfig: "zlib", apt: "zlib1g-dev"),
        .target(name: "CMartlet"),

        // Codecs are generated from Schemas/ when they are built.
        library("SchemaCompiler", []),
        .executableTarget(name: "WireGenerator", dependencies: ["SchemaCompiler"], swiftSettings: strict),
        .plugin(name: "GenerateWire", capability: .buildTool(), dependencies: ["WireGenerator"]),

        library("MartletBasics", ["CISAL"]),
        library(
            "MartletModel", ["MartletBasics", "CZstd", "CLZ4", "CSnappy", "CZlib"], exclude: ["Schemas"],
            plugins: ["GenerateWire"]),
        library("MartletWire", ["MartletBasics", "MartletModel"], exclude: ["Schemas"], plugins: ["GenerateWire"]),
        library("MartletReactor", ["MartletBasics", "CUV", "CMartlet"]),
        library("MartletLog", ["MartletBasics", "MartletModel", "MartletReactor"]),
        library("MartletKeeper", ["MartletBasics", "MartletReactor"]),
        library(
            "MartletCluster",
            ["MartletBasics", "MartletModel", "MartletWire", "MartletReactor", "MartletLog", "MartletKeeper"]),
        library(
            "MartletBroker",
            [
                "MartletBasics", "MartletModel", "MartletWire", "MartletReactor", "MartletLog", "MartletKeeper",
                "MartletCluster",
            ]),
        library("MartletClient", ["MartletBasics", "MartletModel", "MartletWire", "MartletReactor"]),
        library("MartletSimulation", ["MartletBasics", "MartletModel", "MartletWire", "MartletReactor"]),
        library("MartletChecker", ["MartletBasics"]),
        .executableTarget(
            name: "martlet-check", dependencies: ["MartletBasics", "MartletChecker"], swiftSettings: strict),
        library(
            "MartletSwarm",
            [
                "MartletBasics", "MartletModel", "MartletWire", "MartletReactor", "MartletBroker", "MartletSimulation",
                "MartletChecker",
            ]),
        .executableTarget(
            name: "martlet-simulate",
            dependencies: ["MartletBasics", "MartletReactor", "MartletWire", "MartletChecker", "MartletSwarm"],
            swiftSettings: strict),
        .executableTarget(
            name: "martlet",
            dependencies: [
                "MartletBasics", "MartletModel", "MartletReactor", "MartletLog", "MartletKeeper", "MartletCluster",
                "MartletBroker", "MartletClient",
            ], swiftSettings: strict),
        .executableTarget(
            name: "martlet-bench",
            dependencies: ["MartletBasics", "MartletModel", "MartletWire", "MartletReactor"], swiftSettings: strict),

        // What is fuzzed: for the fuzzer, and for a test that replays what it has found.
        .target(
            name: "MartletFuzz",
            dependencies: [
                "MartletBasics", "MartletModel", "MartletWire", "MartletReactor", "MartletLog", "MartletKeeper", "MartletCluster",
                "MartletBroker", "MartletClient", "MartletSimulation",
            ], path: "Fuzz/Targets", swiftSettings: strict, plugins: ["GenerateWire"]),

        tests("TidyTests", [], exclude: ["ratchet.txt"]),
        tests("MartletFuzzTests", ["MartletFuzz", "MartletReactor"]),
        tests("MartletBasicsTests", ["MartletBasics"]),
        tests(
            "MartletModelTests", ["MartletModel", "MartletBasics"],
            exclude: ["Configuration/effects.txt", "Configuration/inert.txt"]),
        tests(
            "MartletWireTests", ["MartletBasics", "MartletModel", "MartletWire", "SchemaCompiler"],
            exclude: ["check_samples.py"], plugins: ["GenerateWire"]),
        tests("MartletReactorTests", ["MartletBasics", "MartletReactor", "CMartlet"]),
        tests(
            "MartletLogTests",
            ["MartletBasics", "MartletModel", "MartletReactor", "MartletLog", "MartletSimulation"]),
        tests(
            "MartletClusterTests",
            [
                "MartletBasics", "MartletModel", "MartletWire", "MartletReactor", "MartletLog", "MartletKeeper",
                "MartletCluster", "MartletSimulation",
            ]),
        tests(
            "MartletBrokerTests",
            [
                "MartletBasics", "MartletModel", "MartletWire", "MartletReactor", "MartletLog", "MartletKeeper",
                "MartletCluster", "MartletBroker", "MartletSimulation",
            ]),
        tests(
            "MartletClientTests",
            [
                "MartletBasics", "MartletModel", "MartletWire", "MartletReactor", "MartletClient", "MartletSimulation",
                "MartletBroker",
            ]),
        tests("MartletCheckerTests", ["MartletBasics", "MartletChecker"]),
        tests("MartletSwarmTests", ["MartletReactor", "MartletChecker", "MartletSwarm"]),
        tests("MartletKeeperTests", ["MartletKeeper", "MartletSimulation", "MartletBasics", "MartletReactor"]),
        tests(
            "MartletSimulationTests",
            [
                "MartletSimulation", "MartletBasics", "MartletModel", "MartletWire", "MartletReactor", "MartletBroker",
                "MartletChecker", "MartletSwarm",
            ]),
    ] + fuzzer
)
