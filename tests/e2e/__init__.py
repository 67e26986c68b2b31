"""The product as a user runs it: real processes, HTTP and files, and Kafka where there is one."""
