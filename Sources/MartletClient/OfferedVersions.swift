import MartletBasics
import MartletModel
package import MartletWire

/// What a broker said it offers, and which version of an API is spoken with it: the highest that both have.
package struct OfferedVersions: Sendable, Equatable {
    private var ranges: [Int16: ClosedRange<Int16>] = [:]

    package init() {}

    /// Ranges that are no ranges are as if the broker had not named them.
    package init(_ response: ApiVersionsResponse) {
        for one in response.apiKeys where one.minVersion <= one.maxVersion {
            ranges[one.apiKey] = one.minVersion...one.maxVersion
        }
    }

    /// Whether it is a broker of this kind, which says what is waited for.
    package var explains: Bool { ranges[ExplainApi.key]?.contains(ExplainApi.versions.upperBound) ?? false }

    package func range(of api: ApiKey) -> ClosedRange<Int16>? { ranges[api.rawValue] }

    /// The highest version that the broker offers and that is known here, at most `limit`; nil where there is none.
    package func version(of api: ApiKey, atMost limit: Int16 = .max) -> Int16? {
        guard let offered = ranges[api.rawValue] else { return nil }
        let known = api.stableVersions
        let version = min(known.upperBound, min(offered.upperBound, limit))
        return version >= max(known.lowerBound, offered.lowerBound) ? version : nil
    }

    /// Why there is no version in common, as a sentence.
    func reasonAgainst(_ api: ApiKey, atMost limit: Int16) -> String {
        guard let offered = ranges[api.rawValue] else { return "it does not offer \(api.title)" }
        let known = api.stableVersions
        return "it offers \(api.title) in versions \(offered.lowerBound) to \(offered.upperBound), "
            + "and spoken here are \(known.lowerBound) to \(min(known.upperBound, limit))"
    }

    // MARK: ApiVersions itself

    /// What is asked first, before anything is known.
    static let firstAsked: Int16 = 4

    /// What the answer to ApiVersions means.
    enum Negotiation: Equatable {
        case agreed(OfferedVersions)
        /// Ask again, in this version.
        case askAgain(Int16)
    }

    /// Reads the answer to ApiVersions that was asked in `version`.
    ///
    /// A broker that does not know the version answers in version 0 with UNSUPPORTED_VERSION, and names the versions of
    /// ApiVersions that it has; brokers before 2.4 name none. The error code stands first in every version.
    static func negotiation(
        _ frame: UnsafeRawBufferPointer, asked version: Int16
    ) throws(DecodingFault) -> Result<Negotiation, ErrorCode> {
        var reader = ByteReader(frame)
        _ = try ResponseHeader.decode(from: &reader, version: 0)
        var peek = reader
        let code = ErrorCode(rawValue: try peek.int16())
        if code == .unsupportedVersion, version > 0 {
            let named = (try? ApiVersionsResponse.decode(from: &reader, version: 0)).map { OfferedVersions($0) }
            let next = named?.version(of: .apiVersions, atMost: version - 1) ?? 0
            return .success(.askAgain(next))
        }
        let response = try ApiVersionsResponse.decode(from: &reader, version: version)
        guard response.errorCode == .none else { return .failure(response.errorCode) }
        return .success(.agreed(OfferedVersions(response)))
    }
}

extension ApiKey {
    /// What Kafka calls it: `ListGroups`.
    var title: String {
        let name = "\(self)"
        let title = name.prefix(1).uppercased() + name.dropFirst()
        if title.hasSuffix("IDs") { return title.dropLast(3) + "Ids" }
        return title.hasSuffix("ID") ? title.dropLast(2) + "Id" : title
    }
}
