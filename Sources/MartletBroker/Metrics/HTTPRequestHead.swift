/// The head of an HTTP/1 request: all that is asked of who only reads. Pure.
///
///     GET /metrics HTTP/1.1⏎
///     Host: broker1:9644⏎
///     ⏎
package struct HTTPRequestHead: Equatable, Sendable {
    /// The largest head that is read.
    package static let sizeLimit = 8 * 1024

    package enum Method: Equatable, Sendable { case get, head, other }

    package var method: Method
    /// Without the query, and without the host where the whole address was sent.
    package var path: String
    /// Whether another request may follow on the connection.
    package var keepsAlive: Bool

    package enum Read: Equatable, Sendable {
        case incomplete
        /// How many bytes the head has.
        case head(HTTPRequestHead, Int)
        /// What is wrong; the connection cannot be read any further.
        case refused(HTTPStatus)
    }

    /// Looks for a whole head at the start of the bytes.
    package static func read(_ bytes: some RandomAccessCollection<UInt8>) -> Read {
        // empty lines before a request are what some clients leave behind the one before
        var rest = bytes[...]
        while rest.starts(with: [13, 10]) { rest = rest.dropFirst(2) }
        guard let size = sizeOfHead(rest) else {
            if bytes.count >= sizeLimit { return .refused(.headerFieldsTooLarge) }
            // what can be no request need not be waited for
            if let first = rest.first, !isToken(first), first != 13 { return .refused(.badRequest) }
            return .incomplete
        }
        guard size + (bytes.count - rest.count) <= sizeLimit else { return .refused(.headerFieldsTooLarge) }
        let lines = rest.prefix(size - 4).split(separator: 10, omittingEmptySubsequences: false)
        switch parse(lines.map { $0.last == 13 ? $0.dropLast() : $0 }) {
        case .success(let head): return .head(head, size + (bytes.count - rest.count))
        case .failure(let status): return .refused(status)
        }
    }

    /// Whether a head may end here, of which all before `from` was looked at already: a peer that sends byte by byte does
    /// not have the whole read anew for each.
    package static func mayEnd(_ bytes: [UInt8], from: Int) -> Bool {
        bytes.count >= sizeLimit || bytes.first.map { !isToken($0) && $0 != 13 } ?? false
            || sizeOfHead(bytes[max(from - 3, 0)...]) != nil
    }

    /// Up to and with the empty line.
    private static func sizeOfHead(_ bytes: some RandomAccessCollection<UInt8>) -> Int? {
        var matched = 0, count = 0
        for byte in bytes {
            count += 1
            if byte == (matched % 2 == 0 ? 13 : 10) { matched += 1 } else { matched = byte == 13 ? 1 : 0 }
            if matched == 4 { return count }
        }
        return nil
    }

    private static func parse(_ lines: [some RandomAccessCollection<UInt8>]) -> Result<HTTPRequestHead, HTTPStatus> {
        let words = lines[0].split(separator: 32, omittingEmptySubsequences: false)
        guard words.count == 3, !words[0].isEmpty, words[0].allSatisfy(isToken), !words[1].isEmpty,
            words[1].allSatisfy({ $0 > 32 && $0 < 127 })
        else { return .failure(.badRequest) }
        let isNew: Bool
        switch String(decoding: words[2], as: UTF8.self) {
        case "HTTP/1.1": isNew = true
        case "HTTP/1.0": isNew = false
        case let version where version.hasPrefix("HTTP/"): return .failure(.versionNotSupported)
        default: return .failure(.badRequest)
        }
        let method: Method =
            switch String(decoding: words[0], as: UTF8.self) {
            case "GET": .get
            case "HEAD": .head
            default: .other
            }
        var head = HTTPRequestHead(method: method, path: path(of: String(decoding: words[1], as: UTF8.self)), keepsAlive: isNew)
        var hosts = 0
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: 58), colon > line.startIndex, line[..<colon].allSatisfy(isToken),
                line.allSatisfy({ $0 >= 32 && $0 != 127 || $0 == 9 })
            else { return .failure(.badRequest) }
            let value = trimmed(line[line.index(after: colon)...])
            switch String(decoding: line[..<colon], as: UTF8.self).lowercased() {
            case "host": hosts += 1
            case "connection":
                for option in value.lowercased().split(separator: ",").map({ $0.filter { $0 != " " && $0 != "\t" } }) {
                    if option == "close" { head.keepsAlive = false }
                    if option == "keep-alive", !isNew { head.keepsAlive = true }
                }
            // nothing that is served here takes a body, and one that is not read would be taken for the next request
            case "transfer-encoding": return .failure(.badRequest)
            case "content-length" where value != "0": return .failure(.badRequest)
            default: break
            }
        }
        guard hosts == 1 || hosts == 0 && !isNew else { return .failure(.badRequest) }
        return .success(head)
    }

    private static func path(of target: String) -> String {
        var rest = target[...]
        if rest.lowercased().hasPrefix("http://") {
            rest = rest.dropFirst(7)
            rest = rest.firstIndex(where: { $0 == "/" || $0 == "?" }).map { rest[$0...] } ?? ""
        }
        let path = rest.prefix { $0 != "?" && $0 != "#" }
        return path.isEmpty ? "/" : String(path)
    }

    private static func trimmed(_ bytes: some RandomAccessCollection<UInt8>) -> String {
        let text = String(decoding: bytes, as: UTF8.self)
        let isSpace: (Character) -> Bool = { $0 == " " || $0 == "\t" }
        return String(text.drop(while: isSpace).reversed().drop(while: isSpace).reversed())
    }

    private static func isToken(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }
}

package enum HTTPStatus: Int, Error, Sendable, CaseIterable {
    case ok = 200
    case badRequest = 400
    case notFound = 404
    case methodNotAllowed = 405
    case requestTimeout = 408
    case headerFieldsTooLarge = 431
    case serviceUnavailable = 503
    case versionNotSupported = 505

    var reason: String {
        switch self {
        case .ok: "OK"
        case .badRequest: "Bad Request"
        case .notFound: "Not Found"
        case .methodNotAllowed: "Method Not Allowed"
        case .requestTimeout: "Request Timeout"
        case .headerFieldsTooLarge: "Request Header Fields Too Large"
        case .serviceUnavailable: "Service Unavailable"
        case .versionNotSupported: "HTTP Version Not Supported"
        }
    }
}

/// An answer; its length is told, so that the connection can be used on.
package struct HTTPAnswer: Sendable {
    package var status: HTTPStatus
    package var contentType: String
    package var body: [UInt8]

    package init(_ status: HTTPStatus, contentType: String = "text/plain; charset=utf-8", _ body: [UInt8]) {
        self.status = status
        self.contentType = contentType
        self.body = body
    }

    package init(_ status: HTTPStatus, _ sentence: String) { self.init(status, Array((sentence + "\n").utf8)) }

    /// `withoutBody`: as HEAD asks, everything but the body.
    package func bytes(keepAlive: Bool, withoutBody: Bool) -> [UInt8] {
        var head = "HTTP/1.1 \(status.rawValue) \(status.reason)\r\nContent-Type: \(contentType)\r\n"
        head += "Content-Length: \(body.count)\r\nCache-Control: no-store\r\n"
        if status == .methodNotAllowed { head += "Allow: GET, HEAD\r\n" }
        if !keepAlive { head += "Connection: close\r\n" }
        head += "\r\n"
        return Array(head.utf8) + (withoutBody ? [] : body)
    }
}
