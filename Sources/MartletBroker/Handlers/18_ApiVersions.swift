import MartletBasics
import MartletModel
import MartletWire

/// ApiVersions 0-4: what this broker serves. Asked at a version that is not served, it answers at version 0 with
/// UNSUPPORTED_VERSION and the range of this very API, so that a client of any age learns how to go on.
///
/// From version 3 on the client names its software; a name that is none gets INVALID_REQUEST. Version 3 hides features
/// whose least version is 0.
enum ApiVersionsHandler {
    static func handle(_ request: Request) throws {
        guard ServedApis.versions(of: ApiVersionsRequest.apiKey)!.contains(request.version) else {
            var response = ApiVersionsResponse()
            response.errorCode = .unsupportedVersion
            response.apiKeys = [entry(ApiVersionsRequest.apiKey, ServedApis.versions(of: ApiVersionsRequest.apiKey)!)]
            var header = request.header
            header.apiVersion = 0
            return try request.connection.encode(response, for: header)
        }
        let asked = try request.decode(ApiVersionsRequest.self)
        var response = ApiVersionsResponse()
        if request.version >= 3 {
            guard isName(asked.clientSoftwareName), isName(asked.clientSoftwareVersion) else {
                response.errorCode = .invalidRequest
                return try request.answer(response)
            }
            request.connection.softwareName = asked.clientSoftwareName
            request.connection.softwareVersion = asked.clientSoftwareVersion
        }
        response.apiKeys = ServedApis.advertised.map { entry($0.key, $0.versions) }
        // whom it helps: other clients would wonder
        if request.connection.softwareName == ownClient { response.apiKeys.append(entry(ExplainApi.key, ExplainApi.versions)) }
        response.finalizedFeaturesEpoch = 0
        tellFeatures(request.version, &response)
        try request.answer(response)
    }

    /// What the client of this project calls itself.
    private static let ownClient = "martlet"

    /// What the cluster can do in one way or another, and which way counts: consumer groups are there (KIP-848), and
    /// transactions end in both ways (KIP-890).
    private static let features: [(name: String, versions: ClosedRange<Int16>, level: Int16)] = [
        ("group.version", 0...1, 1), ("transaction.version", 0...2, 2),
    ]

    private static func tellFeatures(_ version: Int16, _ response: inout ApiVersionsResponse) {
        response.finalizedFeatures = features.map { feature in
            var finalized = ApiVersionsResponse.FinalizedFeatureKey()
            finalized.name = feature.name
            (finalized.minVersionLevel, finalized.maxVersionLevel) = (feature.level, feature.level)
            return finalized
        }
        // version 3 cannot tell of one that begins at 0
        response.supportedFeatures = features.filter { version >= 4 || $0.versions.lowerBound > 0 }.map { feature in
            var supported = ApiVersionsResponse.SupportedFeatureKey()
            (supported.name, supported.minVersion, supported.maxVersion) = (
                feature.name, feature.versions.lowerBound, feature.versions.upperBound)
            return supported
        }
    }

    private static func entry(_ key: Int16, _ versions: ClosedRange<Int16>) -> ApiVersionsResponse.ApiVersion {
        var entry = ApiVersionsResponse.ApiVersion()
        entry.apiKey = key
        entry.minVersion = versions.lowerBound
        entry.maxVersion = versions.upperBound
        return entry
    }

    /// Letters, digits, `-` and `.`, the first and last a letter or digit (KIP-511).
    static func isName(_ text: String) -> Bool {
        func plain(_ byte: UInt8) -> Bool {
            (byte >= 0x30 && byte <= 0x39) || (byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7A)
        }
        let bytes = Array(text.utf8)
        guard let first = bytes.first, let last = bytes.last, plain(first), plain(last) else { return false }
        return bytes.allSatisfy { plain($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: ".") }
    }
}
