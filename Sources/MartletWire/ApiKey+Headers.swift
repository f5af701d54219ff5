/// Which headers stand before a request and a response. Only the API and its version say so; nothing in the frame does.
extension ApiKey {
    package func isFlexible(_ version: Int16) -> Bool {
        guard let first = firstFlexibleVersion else { return false }
        return version >= first
    }

    /// 2 where the version is flexible, else 1, and 0, which has no client id, for ControlledShutdown 0 alone.
    package func requestHeaderVersion(_ version: Int16) -> Int16 {
        if self == .controlledShutdown, version == 0 { return 0 }
        return isFlexible(version) ? 2 : 1
    }

    /// 1 where the version is flexible, else 0. ApiVersions answers with 0 always, since a client that asks which
    /// versions there are cannot know that the broker is new enough for tagged fields in the header.
    package func responseHeaderVersion(_ version: Int16) -> Int16 {
        if self == .apiVersions { return 0 }
        return isFlexible(version) ? 1 : 0
    }

    /// The versions that clients may be offered: those of the schema without an unstable latest one.
    package var stableVersions: ClosedRange<Int16> {
        guard isLatestVersionUnstable, versions.upperBound > versions.lowerBound else { return versions }
        return versions.lowerBound...(versions.upperBound - 1)
    }
}
