/// Who may import whom. SwiftPM lets a target import whatever its dependencies import; the architecture does not.
enum ImportTable {
    /// What the language itself brings; Foundation is not among it, for it costs 50 MB of a server's memory.
    static let language: Set = ["Synchronization"]

    static let rows: [String: Set<String>] = [
        "SchemaCompiler": ["Glibc", "Darwin"],
        "WireGenerator": ["SchemaCompiler"],
        "MartletBasics": ["CISAL"],
        "MartletModel": ["MartletBasics", "CZstd", "CLZ4", "CSnappy", "CZlib"],
        "MartletWire": ["MartletBasics", "MartletModel"],
        "MartletReactor": ["MartletBasics", "CUV", "CMartlet", "Glibc"],
        "MartletLog": ["MartletBasics", "MartletModel", "MartletReactor"],
        "MartletKeeper": ["MartletBasics", "MartletReactor"],
        "MartletCluster": ["MartletBasics", "MartletModel", "MartletWire", "MartletReactor", "MartletLog", "MartletKeeper"],
        "MartletBroker": [
            "MartletBasics", "MartletModel", "MartletWire", "MartletReactor", "MartletLog", "MartletKeeper", "MartletCluster",
        ],
        "MartletClient": ["MartletBasics", "MartletModel", "MartletWire", "MartletReactor"],
        "MartletSimulation": [
            "MartletBasics", "MartletModel", "MartletWire", "MartletReactor", "MartletLog", "MartletKeeper", "MartletCluster",
            "MartletBroker",
            // It counts the processor time that a run took, and nothing else of the system.
            "Glibc",
        ],
        "MartletChecker": ["MartletBasics"],
        "martlet-check": ["MartletBasics", "MartletChecker", "Glibc"],
        "MartletSwarm": [
            "MartletBasics", "MartletModel", "MartletWire", "MartletReactor", "MartletBroker", "MartletSimulation", "MartletChecker",
        ],
        "martlet-simulate": ["MartletBasics", "MartletReactor", "MartletWire", "MartletChecker", "MartletSwarm", "Glibc"],
        "martlet-bench": ["MartletBasics", "MartletModel", "MartletWire", "MartletReactor", "Glibc"],
        "martlet": [
            "MartletBasics", "MartletModel", "MartletReactor", "MartletLog", "MartletKeeper", "MartletCluster", "MartletBroker",
            "MartletClient", "Glibc",
        ],
    ]
}
