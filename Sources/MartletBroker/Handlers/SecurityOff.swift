import MartletBasics
import MartletCluster
import MartletModel
import MartletReactor
import MartletWire

/// DescribeAcls, CreateAcls and DeleteAcls 1-3: without an authorizer there are no access lists to speak of: SECURITY_DISABLED.
enum AclsHandler {
    private static let message = "No authorizer is configured on this broker: whoever connects may do everything."

    static func describe(_ request: Request) throws {
        _ = try request.decode(DescribeAclsRequest.self)
        var response = DescribeAclsResponse()
        response.errorCode = .securityDisabled
        response.errorMessage = message
        try request.answer(response)
    }

    static func create(_ request: Request) throws {
        let asked = try request.decode(CreateAclsRequest.self)
        var response = CreateAclsResponse()
        response.results = asked.creations.map { _ in
            var result = CreateAclsResponse.AclCreationResult()
            result.errorCode = .securityDisabled
            result.errorMessage = message
            return result
        }
        try request.answer(response)
    }

    static func delete(_ request: Request) throws {
        let asked = try request.decode(DeleteAclsRequest.self)
        var response = DeleteAclsResponse()
        response.filterResults = asked.filters.map { _ in
            var result = DeleteAclsResponse.DeleteAclsFilterResult()
            result.errorCode = .securityDisabled
            result.errorMessage = message
            return result
        }
        try request.answer(response)
    }
}

/// SaslHandshake 0-1 and SaslAuthenticate 0-2 on a listener that authenticates nobody: ILLEGAL_SASL_STATE, and the
/// connection goes on.
enum SaslHandler {
    static func handshake(_ request: Request) throws {
        _ = try request.decode(SaslHandshakeRequest.self)
        var response = SaslHandshakeResponse()
        response.errorCode = .illegalSaslState
        try request.answer(response)
    }

    static func authenticate(_ request: Request) throws {
        _ = try request.decode(SaslAuthenticateRequest.self)
        var response = SaslAuthenticateResponse()
        response.errorCode = .illegalSaslState
        response.errorMessage = "This listener speaks PLAINTEXT, where nobody is authenticated."
        try request.answer(response)
    }
}

/// DescribeUserScramCredentials 0: no user has any.
enum DescribeUserScramCredentialsHandler {
    static func handle(_ request: Request) throws {
        let asked = try request.decode(DescribeUserScramCredentialsRequest.self)
        var response = DescribeUserScramCredentialsResponse()
        response.errorMessage = nil
        var counts: [String: Int] = [:]
        for user in asked.users ?? [] { counts[user.name, default: 0] += 1 }
        var answered: Set<String> = []
        for user in asked.users ?? [] where answered.insert(user.name).inserted {
            var result = DescribeUserScramCredentialsResponse.DescribeUserScramCredentialsResult()
            result.user = user.name
            let isRepeated = counts[user.name]! > 1
            result.errorCode = isRepeated ? .duplicateResource : .resourceNotFound
            result.errorMessage =
                isRepeated ? "The user is named more than once in one request." : "The user has no SCRAM credentials."
            response.results.append(result)
        }
        try request.answer(response)
    }
}
