"""The whole product as a user runs it: real processes, real HTTP, real files; on Kafka too where there is one."""
