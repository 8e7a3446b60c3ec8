# One of three nodes of OpenBao that holds kleidi's key. Goes to /etc/openbao/openbao.hcl on vault-0; on the
# others "vault-0" in the first two lines and in node_id is their own name.
api_addr     = "https://vault-0.example:8200"
cluster_addr = "https://vault-0.example:8201"

listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "0.0.0.0:8201"
  # For the names in all addresses of kleidi.yaml, of the authority in its caFile. Read anew with SIGHUP.
  tls_cert_file = "/etc/openbao/server.crt"
  tls_key_file  = "/etc/openbao/server.key"
}

storage "raft" {
  path    = "/var/lib/openbao"
  node_id = "vault-0"
  # A leader that dies is replaced in about two seconds instead of ten.
  performance_multiplier = 1

  retry_join {
    leader_api_addr     = "https://vault-0.example:8200"
    leader_ca_cert_file = "/etc/openbao/ca.crt"
  }
  retry_join {
    leader_api_addr     = "https://vault-1.example:8200"
    leader_ca_cert_file = "/etc/openbao/ca.crt"
  }
  retry_join {
    leader_api_addr     = "https://vault-2.example:8200"
    leader_ca_cert_file = "/etc/openbao/ca.crt"
  }
}

# Opens by itself after a power cut: 32 bytes, the same on all nodes, and in the safe.
seal "static" {
  current_key_id = "first"
  current_key    = "file:///etc/openbao/seal.key"
}

# Two, on two disks: where a node can write to none, it refuses every call. The same on all nodes: one
# whose audit devices differ serves nothing itself.
audit "file" "first" {
  options {
    file_path = "/var/log/openbao/audit.log"
  }
}
audit "file" "second" {
  options {
    file_path = "/srv/openbao/audit.log"
  }
}
