import MartletBasics
import MartletModel
import MartletReactor
import MartletWire

/// Many connections with one request under way on each: what a crowd of clients does.
final class Swarm {
    typealias Answered = (Int, UnsafeRawBufferPointer) throws(BenchFault) -> Frame?

    private let loop: any EventLoop
    private var members: [SwarmMember] = []
    private var conclusion: Conclusion?
    private var answered: Answered?
    private var waiting = 0

    init(_ count: Int, host: any Host, address: SocketAddress) async throws(BenchFault) {
        loop = host.loops[0]
        let scratch = Link.Scratch()
        for index in 0..<count {
            let socket = try await connected(to: address, host)
            members.append(SwarmMember(index, socket, scratch, self))
        }
        for member in members { member.link.start(on: loop) }
    }

    var count: Int { members.count }

    func close() { for member in members { member.link.close() } }

    /// Sends a request on each connection, and whatever `answered` gives for each answer, until it has given nil on all.
    func run(
        within limit: Interval, first: (Int) throws(BenchFault) -> Frame?, answered: @escaping Answered
    ) async throws(BenchFault) {
        let conclusion = Conclusion(on: loop, within: limit)
        self.conclusion = conclusion
        self.answered = answered
        var began: [SwarmMember] = []
        for member in members {
            member.request = try first(member.index)
            if member.request != nil { began.append(member) }
        }
        waiting = began.count
        for member in began { member.link.pump() }
        try await conclusion.wait()
        self.conclusion = nil
        self.answered = nil
    }

    fileprivate func take(_ member: SwarmMember, _ answer: UnsafeRawBufferPointer) throws(BenchFault) {
        guard let answered else { throw BenchFault("an answer came that nobody waits for") }
        member.request = try answered(member.index, answer)
        guard member.request == nil else { return }
        waiting -= 1
        if waiting == 0 { conclusion?.conclude(.success(())) }
    }

    fileprivate func failed(_ fault: BenchFault) { conclusion?.conclude(.failure(fault)) }
}

private final class SwarmMember: Speaker {
    let index: Int
    private(set) var link: Link!
    var request: Frame?
    private var frames = AnswerFrames()
    private unowned let swarm: Swarm

    init(_ index: Int, _ socket: any StreamSocket, _ scratch: Link.Scratch, _ swarm: Swarm) {
        self.index = index
        self.swarm = swarm
        link = Link(socket, scratch: scratch, speaker: self)
    }

    func nextRequest() -> Frame? {
        defer { request = nil }
        return request
    }

    func received(_ bytes: UnsafeRawBufferPointer) throws(BenchFault) {
        try frames.take(bytes) { (answer) throws(BenchFault) in try swarm.take(self, answer) }
    }

    func failed(_ fault: BenchFault) { swarm.failed(fault) }
}

/// Reads an answer, its size left out.
func decoded<R: WireResponse>(
    _: R.Type, _ answer: UnsafeRawBufferPointer, version: Int16
) throws(BenchFault) -> R {
    do throws(DecodingFault) {
        var reader = ByteReader(answer)
        _ = try ResponseHeader.decode(from: &reader, version: ApiKey(rawValue: R.apiKey)!.responseHeaderVersion(version))
        return try R.decode(from: &reader, version: version)
    } catch {
        throw BenchFault("an answer cannot be read: \(error)")
    }
}
