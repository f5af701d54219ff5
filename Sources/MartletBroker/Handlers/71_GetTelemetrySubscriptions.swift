import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// GetTelemetrySubscriptions 0 and PushTelemetry 0. Nothing here receives what clients measure, so neither is advertised; who asks all the
/// same is answered as by a Kafka without a receiver: an id, and no metrics wanted. Nothing is remembered of a client: its subscription
/// follows from its id.
enum TelemetryHandler {
    private static let pushIntervalMs: Int32 = 300_000
    private static let bytesLimit: Int32 = 1 << 20
    /// zstd, lz4, gzip, snappy: the one preferred comes first.
    private static let compressions: [Int8] = [4, 3, 1, 2]

    static func subscriptions(_ request: Request) throws {
        let asked = try request.decode(GetTelemetrySubscriptionsRequest.self)
        var response = GetTelemetrySubscriptionsResponse()
        response.clientInstanceID =
            asked.clientInstanceID == .zero ? UUID(bytes: request.broker.host.randomBytes(16)) : asked.clientInstanceID
        response.subscriptionID = subscription(of: response.clientInstanceID)
        response.acceptedCompressionTypes = compressions
        response.pushIntervalMs = pushIntervalMs
        response.telemetryMaxBytes = bytesLimit
        response.deltaTemporality = true
        try request.answer(response)
    }

    static func push(_ request: Request) throws {
        let asked = try request.decode(PushTelemetryRequest.self)
        var response = PushTelemetryResponse()
        response.errorCode = fault(of: asked)
        try request.answer(response)
    }

    private static func fault(of push: PushTelemetryRequest) -> ErrorCode {
        if push.clientInstanceID == .zero { return .invalidRequest }
        if push.subscriptionID != subscription(of: push.clientInstanceID) { return .unknownSubscriptionID }
        if push.compressionType != 0, !compressions.contains(push.compressionType) { return .unsupportedCompressionType }
        if push.metrics.count > Int(bytesLimit) { return .telemetryTooLarge }
        return .none
    }

    private static func subscription(of client: UUID) -> Int32 {
        let folded = client.high ^ client.low
        return Int32(truncatingIfNeeded: folded ^ folded >> 32)
    }
}
