import MartletBasics
import MartletReactor

/// How something ends that callbacks carry on: once, and by the first that says so. A time limit makes sure that it
/// does.
final class Conclusion {
    private let loop: any EventLoop
    private var result: Result<Void, BenchFault>?
    private var waiting: UnsafeContinuation<Void, Never>?
    private var timer: TimerToken?

    init(on loop: any EventLoop, within limit: Interval) {
        self.loop = loop
        timer = loop.schedule(after: limit) { [weak self] in
            self?.conclude(.failure(BenchFault("the server did not answer within \(limit.milliseconds / 1000) s")))
        }
    }

    var isReached: Bool { result != nil }

    func conclude(_ result: Result<Void, BenchFault>) {
        guard self.result == nil else { return }
        self.result = result
        if let timer { loop.cancel(timer) }
        timer = nil
        waiting?.resume()
        waiting = nil
    }

    func wait() async throws(BenchFault) {
        if result == nil {
            await withUnsafeContinuation { continuation in waiting = continuation }
        }
        try result!.get()
    }
}
