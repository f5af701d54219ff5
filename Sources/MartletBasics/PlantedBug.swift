#if PLANTED_BUGS
    /// Bugs that decoders have in a fuzz build alone, one at a time and none unless it is asked for: who looks for bugs has
    /// to show that these would be found.
    package enum PlantedBug: String, CaseIterable {
        /// A tagged field is as long as it says.
        case taggedFieldSize
        /// A header's value is as long as it says.
        case headerValueSize
        /// A block of snappy's stream has a size that is not negative.
        case snappyBlockSize
        /// A number in a checkpoint fits its type.
        case checkpointNumber
        /// A record of the keeper's log ends in the file.
        case keeperRecordSize

        nonisolated(unsafe) package static var planted: PlantedBug?

        package var isPlanted: Bool { Self.planted == self }
    }
#endif
