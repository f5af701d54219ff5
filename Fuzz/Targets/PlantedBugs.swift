import MartletBasics

/// The bugs that this build can have, and where each is to be found. None but in a fuzz build.
package var plantedBugs: [(name: String, target: FuzzTarget)] {
    #if PLANTED_BUGS
    PlantedBug.allCases.map { bug in
        switch bug {
        case .taggedFieldSize: (bug.rawValue, .requests)
        case .headerValueSize: (bug.rawValue, .batch)
        case .snappyBlockSize: (bug.rawValue, .decompression)
        case .checkpointNumber: (bug.rawValue, .checkpoints)
        case .keeperRecordSize: (bug.rawValue, .keeper)
        }
    }
    #else
    []
    #endif
}

/// False where there is no such bug.
package func plantBug(_ name: String) -> Bool {
    #if PLANTED_BUGS
    PlantedBug.planted = PlantedBug(rawValue: name)
    return PlantedBug.planted != nil
    #else
    return false
    #endif
}
