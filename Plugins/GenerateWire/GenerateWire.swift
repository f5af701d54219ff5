import Foundation
import PackagePlugin

/// Generates the codecs: of requests and responses for MartletWire, of records for MartletModel, and a catalog of them
/// all for the tests. One command a target, so that SwiftPM asks once whether a schema has changed.
@main
struct GenerateWire: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
        let sources = context.package.directoryURL.appending(path: "Sources")
        let apis = try schemas(in: sources.appending(path: "MartletWire/Schemas/apis"))
        let records = try schemas(in: sources.appending(path: "MartletModel/Schemas/records"))
        let folder = context.pluginWorkDirectoryURL
        let mode: String
        let inputs: [URL]
        var outputs: [String]
        switch target.name {
        case "MartletWire":
            (mode, inputs) = ("wire", apis)
            outputs = apis.map { swiftFileName($0) } + ["ApiKey.swift"]
        case "MartletModel":
            (mode, inputs) = ("records", records)
            outputs = records.map { swiftFileName($0) }
        case "MartletFuzz":
            (mode, inputs) = ("list", apis + records)
            outputs = ["MessageList.swift"]
        default:
            (mode, inputs) = ("catalog", apis + records)
            outputs = ["RandomMessages.swift"]
        }
        outputs.sort()
        let tool = try context.tool(named: "WireGenerator").url
        return [
            .buildCommand(
                displayName: "Generating the codecs of \(target.name)",
                executable: tool,
                arguments: [mode, folder.path()] + inputs.map { $0.path() },
                inputFiles: inputs,
                outputFiles: outputs.map { folder.appending(path: $0) })
        ]
    }

    private func schemas(in folder: URL) throws -> [URL] {
        try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .filter { $0.pathExtension == "schema" }
            .sorted { $0.path() < $1.path() }
    }

    /// `00-Produce.schema` → `Produce.swift`.
    private func swiftFileName(_ schema: URL) -> String {
        let name = schema.deletingPathExtension().lastPathComponent
        return (name.split(separator: "-", maxSplits: 1).last.map(String.init) ?? name) + ".swift"
    }
}
