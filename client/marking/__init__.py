"""What an owner does to models on his own machine: train, embed, attack, measure.

    task                    what is trained, as the command line says it; light, and known to every verb
    models                  data sets, networks and trainings by name: the bridge to `wm`
    embedding, scheme_bundle, savepoints, plots     a bundle is made, and goes on after an interruption
    measuring, attacking, attack_plot               what nodes would count, before and after an attack
    fitting                 whether they could count anything at all, before a claim reveals a key for good

These modules and `client.serving` know torch and `wm`; the rest of the client does not, and imports one of them where
it is used, so that a client alone installs in seconds (`client.extras`).
"""
