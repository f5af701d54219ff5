import SchemaCompiler

Generation.run(CommandLine.arguments)
