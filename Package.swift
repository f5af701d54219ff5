// swift-tools-version: 6.2
// The list of targets is the architecture: ARCHITECTURE.md says what each is for, and Tests/TidyTests holds the
// table of who may import whom (SwiftPM itself would let a target import whatever its dependencies import).
import PackageDescription

let strict: [SwiftSetting] = [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]

func library(_ name: String, _ dependencies: [Target.Dependency], plugins: [Target.PluginUsage] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict, plugins: plugins)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}

func system(_ name: String, pkgConfig: String, apt: String) -> Target {
    .systemLibrary(name: name, pkgConfig: pkgConfig, providers: [.apt([apt])])
}

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

        library("MartletBasics", ["CISAL"]),
        library("MartletModel", ["MartletBasics", "CZstd", "CLZ4", "CSnappy", "CZlib"]),
        library("MartletReactor", ["MartletBasics", "CUV", "CMartlet"]),

        library("MartletSimulation", ["MartletBasics", "MartletReactor"]),

        tests("MartletBasicsTests", ["MartletBasics"]),
        tests("MartletSimulationTests", ["MartletSimulation", "MartletBasics", "MartletReactor"]),
        tests("MartletReactorTests", ["MartletBasics", "MartletReactor", "CMartlet"]),
    ]
)
