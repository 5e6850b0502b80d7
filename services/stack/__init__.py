"""The local stack: certificates, keys, broker, identity provider and the four services on one machine."""
