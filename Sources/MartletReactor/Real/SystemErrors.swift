import CMartlet
import Glibc

extension SystemError {
    /// From the errno of a call that failed. Either sign: the calls of `CMartlet` return it negated.
    package init(errno code: Int32, _ operation: StaticString, _ subject: String) {
        let code = code < 0 ? -code : code
        let reason = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 128) { text in
            martlet_error_text(code, text.baseAddress!, text.count)
            return String(cString: text.baseAddress!)
        }
        self.init(Self.kind(of: code), code: code, operation: operation, subject: subject, reason: reason)
    }

    private static func kind(of code: Int32) -> Kind {
        switch code {
        case ENOENT: .notFound
        case EEXIST: .exists
        case EACCES, EPERM, EROFS: .permissionDenied
        case ENOSPC, EDQUOT, EFBIG: .noSpace
        case EADDRINUSE: .addressInUse
        case EADDRNOTAVAIL, EAFNOSUPPORT: .addressNotAvailable
        case EMFILE, ENFILE: .tooManyFiles
        case ENOTDIR: .notADirectory
        case EISDIR: .isADirectory
        case ENOTEMPTY: .notEmpty
        case EBUSY, EAGAIN, ETXTBSY: .busy
        case ECONNREFUSED, ECONNRESET, ECONNABORTED, EPIPE, ENOTCONN, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, EHOSTDOWN,
            ENETDOWN, ENETRESET, ESHUTDOWN:
            .connectionLost
        case EIO, ENXIO, ENODEV, EUCLEAN: .inputOutput
        default: .other
        }
    }

    /// Whether the errno of a send says that the connection has gone, rather than that what was to be sent could not be
    /// read.
    static func concernsConnection(_ code: Int32) -> Bool {
        switch code {
        case EPIPE, ENOTCONN, ECONNRESET, ECONNABORTED, ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, EHOSTDOWN, ENETUNREACH,
            ENETDOWN, ENETRESET, ESHUTDOWN, ENOTSOCK, EDESTADDRREQ:
            true
        default: false
        }
    }
}
