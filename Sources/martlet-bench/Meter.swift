import MartletBasics
import MartletReactor

/// What one measurement found.
struct Figures {
    var seconds: Double
    var requests: Int
    var records: Int
    var megabytes: Double
    var serverCPUSeconds: Double
    var clientCPUSeconds: Double
    var serverMegabytes: Double
    var latencies: LatencyHistogram

    /// One object; times in the unit that the name ends with, megabytes of a million bytes.
    var json: JSONValue {
        func per(_ amount: Double, _ share: Double) -> JSONValue {
            share > 0 ? .double(rounded(amount / share)) : .null
        }
        return [
            "seconds": .double(rounded(seconds)), "requests": .int(Int64(requests)), "records": .int(Int64(records)),
            "megabytes": .double(rounded(megabytes)),
            "megabytes_per_second": per(megabytes, seconds), "requests_per_second": per(Double(requests), seconds),
            "megabytes_per_cpu_second": per(megabytes, serverCPUSeconds),
            "requests_per_cpu_second": per(Double(requests), serverCPUSeconds),
            "p50_us": microseconds(500), "p99_us": microseconds(990), "p999_us": microseconds(999),
            "max_us": .double(rounded(Double(latencies.maximum) / 1000)),
            "server_cpu_seconds": .double(rounded(serverCPUSeconds)),
            "client_cpu_seconds": .double(rounded(clientCPUSeconds)),
            "server_anonymous_megabytes": .double(rounded(serverMegabytes)),
        ]
    }

    private func microseconds(_ permille: Int) -> JSONValue {
        .double(rounded(Double(latencies.permille(permille)) / 1000))
    }

    private func rounded(_ value: Double) -> Double { (value * 1000).rounded() / 1000 }
}

/// Counts what a load does between the end of its warm-up and the end of its time.
final class Meter {
    private enum Phase { case warmingUp, measuring, over }

    private struct Sample {
        var time: Instant
        var serverCPU: Double
        var clientCPU: Double
    }

    let clock: any Clock
    private let server: ProcessFigures
    private let client: ProcessFigures
    private let milliseconds: Int64
    private let requestsLimit: Int
    private let warmUpEnd: Instant
    private var phase = Phase.warmingUp
    private var start: Sample?
    private var end: Sample?
    private var deadline = Instant.distantFuture
    private var requests = 0
    private var records = 0
    private var bytes = 0
    private var latencies = LatencyHistogram()

    /// `requestsLimit` ends the measurement before its time.
    init(host: any Host, serverProcess: String, extent: Extent, requestsLimit: Int = .max) {
        clock = host.clock
        server = ProcessFigures(disk: host.disk, process: serverProcess)
        client = ProcessFigures(disk: host.disk, process: "self")
        milliseconds = extent.milliseconds
        self.requestsLimit = requestsLimit
        warmUpEnd = host.clock.now + .milliseconds(extent.warmUpMilliseconds)
    }

    var isOver: Bool { phase == .over }

    /// A request is done. The first one after the warm-up begins the measurement and is not counted; the last one ends
    /// it.
    func finished(sent: Instant, records: Int, bytes: Int) throws(BenchFault) {
        let now = clock.now
        switch phase {
        case .over: return
        case .warmingUp:
            guard now >= warmUpEnd else { return }
            start = try sample(now)
            deadline = now + .milliseconds(milliseconds)
            phase = .measuring
        case .measuring:
            requests += 1
            self.records += records
            self.bytes += bytes
            latencies.record((now - sent).nanoseconds)
            if now >= deadline || requests >= requestsLimit { try finish() }
        }
    }

    /// Ends the measurement, for a load that has an end of its own.
    func finish() throws(BenchFault) {
        guard phase != .over else { return }
        end = try sample(clock.now)
        phase = .over
    }

    private func sample(_ now: Instant) throws(BenchFault) -> Sample {
        Sample(time: now, serverCPU: try server.cpuSeconds(), clientCPU: try client.cpuSeconds())
    }

    func figures() throws(BenchFault) -> Figures {
        guard let start, let end, requests > 0 else { throw BenchFault("nothing was answered while it was measured") }
        return Figures(
            seconds: Double((end.time - start.time).nanoseconds) / 1e9, requests: requests, records: records,
            megabytes: Double(bytes) / 1e6, serverCPUSeconds: end.serverCPU - start.serverCPU,
            clientCPUSeconds: end.clientCPU - start.clientCPU, serverMegabytes: try server.anonymousMegabytes(),
            latencies: latencies)
    }
}
