"""What runs inside a sandbox: the fork server, the process of the solution, the process of the judge.

The host sends the source of these modules over the channel when a sandbox starts, so an image needs nothing but Python
(3.9 or later) and the two sides always fit. They use the standard library only. `codec` is used on both sides; nothing
else in here is ever imported by the host, and all of it except the fork server shares a process with hostile code, so
nothing that comes out is believed beyond being plain data.
"""
