import MartletBasics
import MartletReactor

/// The broker could not be reached, or gave no answer: the request is to be sent again.
package struct ChannelFault: Error, Sendable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}

/// How the controller's requests reach one broker.
package protocol ControllerChannel: AnyObject, Sendable {
    /// Delivers a request and waits for the answer, for a task of the first loop. The next request comes after that.
    func send(_ request: ControllerRequest) async throws(ChannelFault) -> ControllerResponse
    func close()
}

/// The controller's requests to one registration of one broker: one at a time, in order, again and again until it
/// answers or is gone.
///
/// On the first loop only.
final class BrokerQueue: @unchecked Sendable {
    /// Requests that may wait; more mean that the broker is told everything anew.
    static let lengthLimit = 10_000
    private static let retryDelay = Interval.milliseconds(100)

    let broker: LiveBroker
    private let channel: any ControllerChannel
    private let loop: any EventLoop
    private let logger: Logger
    private let onAnswer: (ControllerRequest, ControllerResponse) -> Void
    private let onOverflow: () -> Void
    private var waiting = RingQueue<ControllerRequest>()
    private var isRunning = false
    private var isClosed = false

    init(
        _ broker: LiveBroker, channel: any ControllerChannel, loop: any EventLoop, logger: Logger,
        onAnswer: @escaping (ControllerRequest, ControllerResponse) -> Void, onOverflow: @escaping () -> Void
    ) {
        self.broker = broker
        self.channel = channel
        self.loop = loop
        self.logger = logger
        self.onAnswer = onAnswer
        self.onOverflow = onOverflow
    }

    func append(_ request: ControllerRequest) {
        guard waiting.count < Self.lengthLimit else {
            logger.warning(
                "a broker answers too slowly: what waited for it is dropped, and it is told everything anew",
                ("broker", "\(broker.id)"))
            waiting.removeAll()
            return onOverflow()
        }
        waiting.append(request)
        guard !isRunning else { return }
        isRunning = true
        loop.spawn { [self] in await run() }
    }

    func close() {
        isClosed = true
        waiting.removeAll()
        channel.close()
    }

    private func run() async {
        while !isClosed, let request = waiting.popFirst() {
            guard let response = await deliver(request) else { break }
            if !isClosed { onAnswer(request, response) }
        }
        isRunning = false
    }

    private func deliver(_ request: ControllerRequest) async -> ControllerResponse? {
        var hasComplained = false
        while !isClosed {
            do throws(ChannelFault) {
                return try await channel.send(request)
            } catch {
                if !hasComplained, !isClosed {
                    logger.warning("a broker is not reached; tried again", ("broker", "\(broker.id)"), ("reason", "\(error)"))
                }
                hasComplained = true
                await loop.sleep(for: Self.retryDelay)
            }
        }
        return nil
    }
}
