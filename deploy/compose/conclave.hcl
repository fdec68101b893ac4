# One configuration for all three nodes: what differs (node id, addresses) comes from the environment.
cluster_name = "compose"

storage "raft" {
  path = "/conclave/data"
}

listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "0.0.0.0:8201"
  tls_disable     = true # a demonstration on one machine; give it tls_cert_file and tls_key_file elsewhere
}
