"""Who a puppet is and what its body looks like: identity numbers, head, hair, clothes, face colors."""
